import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from gopd_callbacks.figures import accuracy_names, domains_of, teacher_line
from gopd_callbacks.panel import Counter, State, panel, plain_line
from gopd_callbacks.progress import Progress
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from tiny_run import Loader, Tiny, trainer

from gopd_lightning.errors import InputError

BASELINES = {
    "base": {"math": {"avg@4": 0.45}, "code": {"avg@4": 0.5}},
    "teacher:math": {"math": {"avg@4": 0.73}, "code": {"avg@4": 0.9}},
    "teacher:code": {"math": {"avg@4": 0.8}, "code": {"avg@4": 0.75}},
}
LONG = "a-domain-with-quite-a-long-name"
METRICS = {f"{name}/{d}": 12.345678 for name in ("reward", "kl_teacher", "entropy") for d in ("math", LONG)}
METRICS |= {"length/math": 20000.5, "val/math/avg@4": 0.801, "val/aime/2024/avg@4": 0.5}
METRICS |= {
    "speed/tokens_per_s": 1234567.8,
    "speed/of_limit": 0.1234,
    "train/loss": -0.000123456,
    "train/grad_norm": 123.456,
}


def drawn(state: State) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(panel(state))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def full_state() -> State:
    main = Counter("step", 10000, done=9000, unit="step")
    main.began -= 36000
    return State(main, Counter("validation", 200, done=100), METRICS, BASELINES)


def run(folder: Path, stage: str, every: int = 5) -> Trainer:
    folder.mkdir(exist_ok=True)
    (folder / "baselines.json").write_text(json.dumps(BASELINES))
    out = trainer(folder, Progress(every), enable_progress_bar=True)
    if stage == "fit":
        out.fit(Tiny(), Loader(10), Loader(3))
    else:
        getattr(out, stage)(Tiny(), Loader(7))
    return out


def test_panel_fits_eighty_columns_and_cuts_no_number() -> None:
    text = drawn(full_state())
    assert max(len(line) for line in text.splitlines()) <= 80
    for word in (
        "9000/10000",
        "10:00:00",
        "1:06:40 left",
        "20000.5",
        "80.1%",
        "73.0%",
        "1,234,568 tokens/s · 12.3% of limit",
    ):
        assert word in text


def test_panel_of_a_run_without_any_metrics_is_the_bar_alone() -> None:
    assert len(drawn(State(Counter("step", float("inf")))).splitlines()) == 1


def test_remaining_time_counts_only_what_this_run_did() -> None:
    counter = Counter("step", 100, done=60, first=50, unit="step")
    counter.began -= 20
    assert counter.remaining == pytest.approx(80, rel=0.01)
    assert counter.rate == "2.0 s/step"


def test_teacher_line_is_the_domain_s_own_teacher_else_the_best() -> None:
    assert teacher_line(BASELINES, "math", "avg@4") == 0.73
    both = {"teacher:a": {"aime": {"avg@4": 0.2}}, "teacher:b": {"aime": {"avg@4": 0.4}}}
    assert teacher_line(both, "aime", "avg@4") == 0.4
    assert teacher_line({"base": {"math": {"avg@4": 0.4}}}, "math", "avg@4") is None


def test_domains_and_data_sets_are_found_by_name() -> None:
    assert domains_of(METRICS) == [LONG, "aime/2024", "math"]
    assert accuracy_names(METRICS) == {"math": "val/math/avg@4", "aime/2024": "val/aime/2024/avg@4"}


def test_plain_line_says_step_time_and_figures() -> None:
    line = plain_line(full_state())
    assert line.startswith("step 9000/10000, 10:00:00 elapsed, 1:06:40 left | ")
    assert "avg@4 80.1% (teacher's 73.0%)" in line
    assert "\n" not in line


def test_without_a_terminal_one_line_every_few_steps_and_after_validation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "fit")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    heads = [line.partition(",")[0] for line in lines]
    assert [head for head in heads if head.startswith("step")] == ["step 5/12", "step 10/12", "step 12/12"]
    assert [head for head in heads if head.startswith("validation")] == [
        f"validation after step {step}/12" for step in (4, 8, 12)
    ]
    assert "(teacher's 73.0%)" in lines[0]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("stage", "title"), [("test", "testing"), ("predict", "predicting")])
def test_without_a_terminal_other_stages_say_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, title: str
) -> None:
    run(tmp_path, stage)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(title)]
    assert [line.partition(",")[0] for line in lines] == [f"{title} 5/7", f"{title} 7/7"]


def test_validation_alone_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "validate")
    assert "validation 7/7" in capsys.readouterr().out


def test_lightning_adds_no_bar_of_its_own(tmp_path: Path) -> None:
    bars = [type(c) for c in run(tmp_path, "test").callbacks if isinstance(c, ProgressBar)]
    assert bars == [Progress]


def test_disabled_it_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(1)
    bar.disable()
    trainer(tmp_path, bar, enable_progress_bar=True).predict(Tiny(), Loader(2))
    assert "predicting" not in capsys.readouterr().out


def test_in_a_terminal_it_draws_and_lets_prints_and_logs_through(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from pathlib import Path; from test_progress import *\n"
        "from lightning.pytorch import Callback\n"
        "class Noise(Callback):\n"
        "    def on_train_batch_end(self, *a):\n"
        "        print('printed [red]as is'); logging.getLogger('lightning.pytorch').warning('logged')\n"
        "import tiny_run; out = trainer(Path(sys.argv[1]), Progress(), Noise(), enable_progress_bar=True)\n"
        "out.fit(Tiny(0.1), Loader(10), Loader(3))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *(path for path in sys.path if path)])
    env = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    main, child = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=child, stderr=child, stdin=child, env=env
    ) as process:
        os.close(child)
        text = _read_all(main)
    assert process.returncode == 0
    assert "printed [red]as is" in text
    assert text.count("logged") == 12
    assert text.count("12/12") >= 1
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden, and given back
    assert "step 10/12," not in text


def _read_all(descriptor: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def test_plain_every_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="plain_every is 0"):
        Progress(plain_every=0)
