"""What the progress display says: the state of a run as a panel of 80 columns, and as one plain line."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar as Bar
from rich.table import Table
from rich.text import Text

from gopd_callbacks.figures import Baselines, accuracy_names, domains_of, teacher_line

COLUMNS = {"reward": ".3f", "kl_teacher": ".4f", "entropy": ".3f", "length": ".1f"}
TITLES = {"kl_teacher": "KL teacher"}
FOOTER = {
    "speed/tokens_per_s": "{:,.0f} tokens/s",
    "speed/of_limit": "{:.1%} of limit",
    "train/loss": "loss {:.4g}",
    "train/grad_norm": "gradient norm {:.3g}",
}


@dataclass
class Counter:
    """Steps or batches done of a total, and the time they took.

    Attributes:
        title: What is counted.
        total: How many there will be; infinite when nobody knows.
        done: How many there were.
        first: How many there were when the clock was started (a resumed run).
        began: When the clock was started, seconds.
        unit: One of what is counted.
    """

    title: str
    total: float
    done: int = 0
    first: int = 0
    began: float = field(default_factory=time.perf_counter)
    unit: str = "batch"

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was started."""
        return time.perf_counter() - self.began

    @property
    def remaining(self) -> float | None:
        """Seconds that the rest will take at the mean pace so far; None before anything is known."""
        counted = self.done - self.first
        if counted < 1 or self.total == float("inf"):
            return None
        return self.elapsed / counted * max(0.0, self.total - self.done)

    @property
    def rate(self) -> str:
        """The mean pace in words: `2.1 step/s`, or `3.4 s/step` when a step takes longer than a second."""
        counted = self.done - self.first
        if counted < 1:
            return ""
        seconds = max(self.elapsed, 1e-9) / counted
        return f"{seconds:.1f} s/{self.unit}" if seconds > 1 else f"{1 / seconds:.1f} {self.unit}/s"

    @property
    def of(self) -> str:
        """`done/total`."""
        return f"{self.done}/{'?' if self.total == float('inf') else int(self.total)}"


@dataclass
class Tally(Counter):
    """Samples of an evaluation, and how many of those that were graded are right.

    Attributes:
        graded: Samples graded so far.
        rewards: Sum of their rewards.
    """

    graded: int = 0
    rewards: float = 0.0

    def restart(self, total: int) -> None:
        """Begin to count from nothing.

        Args:
            total: How many samples there will be.
        """
        self.total, self.done, self.graded, self.rewards = total, 0, 0, 0.0
        self.began = time.perf_counter()

    def count(self, rewards: Sequence[float]) -> None:
        """Count graded samples.

        Args:
            rewards: Their rewards.
        """
        self.graded += len(rewards)
        self.rewards += sum(rewards)

    @property
    def accuracy(self) -> str:
        """The running accuracy in words."""
        return f"accuracy so far {self.rewards / self.graded:.1%} of {self.graded:,}" if self.graded else ""


@dataclass
class State:
    """All that the display knows.

    Attributes:
        main: The training steps, or the batches of another stage.
        inner: The batches of a validation that runs between two steps.
        metrics: Name -> latest value.
        baselines: Accuracies of base and teachers.
    """

    main: Counter
    inner: Counter | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    baselines: Baselines = field(default_factory=dict)


def panel(state: State) -> RenderableType:
    """The live panel: bars, a line per domain, a line of rates.

    Args:
        state: What to show.
    """
    parts: list[RenderableType] = [_bars(state)]
    if domains := domains_of(state.metrics):
        parts.append(_domains(state, domains))
    if footer := _footer(state):
        parts.append(Text(" " + footer, style="dim"))
    return Group(*parts)


def plain_line(state: State) -> str:
    """One line of the same figures, for logs.

    Args:
        state: What to say.
    """
    main = state.main
    head = f"{main.title} {main.of}, {_clock(main.elapsed)} elapsed, {_clock(main.remaining)} left"
    domains = [_domain_words(state, domain) for domain in domains_of(state.metrics)]
    return " | ".join([head, *domains, *filter(None, [_footer(state)])])


def _bars(state: State) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    for width in (10, None, 7, 11, 5, 10):  # fixed, so that the bars do not jump; the bar takes the rest
        grid.add_column(no_wrap=True, min_width=width, ratio=None if width else 1)
    for counter in filter(None, (state.main, state.inner)):
        total = None if counter.total == float("inf") else max(1.0, counter.total)
        left = Text(_clock(counter.remaining) + " left", style="cyan")
        words = (counter.of, counter.rate, _clock(counter.elapsed), left)
        grid.add_row(counter.title, Bar(total=total, completed=counter.done), *words)
    return grid


def _domains(state: State, domains: list[str]) -> Table:
    accuracy = accuracy_names(state.metrics)
    figure = next((name.rpartition("/")[2] for name in accuracy.values()), "accuracy")
    shown = [name for name in COLUMNS if any(f"{name}/{domain}" in state.metrics for domain in domains)]
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("domain", no_wrap=True, overflow="ellipsis", max_width=16)
    for title in (*(TITLES.get(name, name) for name in shown), figure, "teacher's"):
        table.add_column(title, justify="right", no_wrap=True)
    for domain in domains:
        cells = [_number(state.metrics.get(f"{name}/{domain}"), COLUMNS[name]) for name in shown]
        table.add_row(domain, *cells, *_accuracies(state, accuracy.get(domain), domain))
    return table


def _accuracies(state: State, name: str | None, domain: str) -> tuple[Text, str]:
    """The student's accuracy, green when it is past the teacher's, and the teacher's."""
    if name is None:
        return Text("-"), "-"
    own = state.metrics[name]
    line = teacher_line(state.baselines, domain, name.rpartition("/")[2])
    style = "bold green" if line is not None and own > line else ""
    return Text(_number(own, ".1%"), style=style), _number(line, ".1%")


def _domain_words(state: State, domain: str) -> str:
    words = [domain]
    for name, form in COLUMNS.items():
        if (value := state.metrics.get(f"{name}/{domain}")) is not None:
            words.append(f"{TITLES.get(name, name)} {value:{form}}")
    if accuracy := accuracy_names(state.metrics).get(domain):
        figure = accuracy.rpartition("/")[2]
        line = teacher_line(state.baselines, domain, figure)
        beside = "" if line is None else f" (teacher's {line:.1%})"
        words.append(f"{figure} {state.metrics[accuracy]:.1%}{beside}")
    return " ".join(words)


def _footer(state: State) -> str:
    words = [form.format(state.metrics[name]) for name, form in FOOTER.items() if name in state.metrics]
    if isinstance(state.main, Tally) and state.main.accuracy:
        words.append(state.main.accuracy)
    return " · ".join(words)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
