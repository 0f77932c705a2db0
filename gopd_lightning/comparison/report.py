"""A comparison as people read it: a table for the console, the same as Markdown, and its findings in words."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gopd_lightning.comparison.statistics import Difference, SetComparison
from gopd_lightning.metrics import Figure
from gopd_lightning.metrics.intervals import RESAMPLES

STYLES = {"better": "green", "worse": "red", "within noise": "dim"}


def table(comparisons: Sequence[SetComparison], runs: Sequence[str], level: float) -> RenderableType:
    """The table for a console of 100 columns: a block a data set, a line a run, with what was computed below it.

    Args:
        comparisons: What `compare` found.
        runs: Names of the runs, the first is compared with.
        level: Of the intervals.
    """
    out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    out.add_column("set (problems)", overflow="fold")
    for title in ("avg@k, %", "difference, points", "p", "sample 0", "verdict"):
        out.add_column(title, no_wrap=True)
    for comparison in comparisons:
        out.add_row(Text(_title(comparison), style="bold"))
        for cells in _lines(comparison, runs, level):
            style = STYLES.get(cells[-1], "")
            out.add_row(Text(f"  {cells[0]}"), *map(Text, cells[1:-1]), Text(cells[-1], style=style))
    said = [Text(line) for line in (*findings(comparisons, runs, level), "")]
    return Group(out, Text(), *said, Text(caption(comparisons, runs, level), style="dim"))


def markdown(
    comparisons: Sequence[SetComparison], runs: Sequence[tuple[str, str]], level: float, warnings: Sequence[str]
) -> str:
    """The same as Markdown, with where the runs are and how everything was computed.

    Args:
        comparisons: What `compare` found.
        runs: Name and folder of each run.
        level: Of the intervals.
        warnings: What else differs between the runs.
    """
    names = [name for name, _ in runs]
    titles = ("set", "problems", "run", "avg@k, %", "difference, points", "p", "p (Holm)", "sample 0", "verdict")
    lines = ["# Comparison", "", *(f"- {_cell(name)}: `{folder}`" for name, folder in runs), ""]
    lines += [f"Differences are those to **{_cell(names[0])}**.", ""]
    lines += [_row(titles), _row(["---", "---:", "---", "---", "---", "---:", "---:", "---", "---"])]
    for one in comparisons:
        adjusted = ["", *(_p(difference.adjusted) for difference in one.differences)]
        for cells, corrected in zip(_lines(one, names, level), adjusted, strict=True):
            name, share, difference, p, test, verdict = cells
            lines.append(_row([one.name, str(one.problems), name, share, difference, p, corrected, test, verdict]))
    lines += ["", "## Findings", "", *(f"- {_cell(line)}" for line in findings(comparisons, names, level))]
    if warnings:
        lines += ["", "## Beware", "", *(f"- {_cell(line)}" for line in warnings)]
    lines += ["", "## How it was computed", "", *(f"- {line}" for line in method(comparisons, level))]
    return "\n".join([*lines, "", "![comparison](comparison.png)", ""])


def findings(comparisons: Sequence[SetComparison], runs: Sequence[str], level: float) -> list[str]:
    """In words: a line for each difference that holds, one for all that are within noise.

    Args:
        comparisons: What `compare` found.
        runs: Names of the runs.
        level: Of the intervals.
    """
    lines = []
    noise: dict[str, list[str]] = {}
    for one in comparisons:
        for run, difference in zip(runs[1:], one.differences, strict=True):
            verdict = difference.verdict(level)
            if verdict == "within noise":
                noise.setdefault(run, []).append(one.name)
            else:
                lines.append(f"{one.name}: {run} is {verdict} than {runs[0]} by {_size(difference)}.")
    for run, names in noise.items():
        lines.append(f"{', '.join(names)}: {run} and {runs[0]} are within noise of each other.")
    return lines


def method(comparisons: Sequence[SetComparison], level: float) -> list[str]:
    """How the figures were computed, a sentence or two each.

    Args:
        comparisons: What `compare` found.
        level: Of the intervals.
    """
    tests = sum(len(one.differences) for one in comparisons)
    said = [
        f"avg@k: mean over problems of the mean reward of a problem's samples. Brackets: {100 * level:g} % interval, "
        f"percentile bootstrap over problems ({RESAMPLES:,} resamples, fixed seed), widened where all or almost all "
        "problems are equal to the exact binomial (Clopper-Pearson) bound.",
        "difference and p: paired bootstrap over the same problems, two-sided. The p is never below that of the signs "
        "of the problems that differ (2 * 0.5 ** m for m of them), and the interval widened to agree.",
        "sample 0: problems that only this run (+) or only the first (-) has right in sample 0 of each problem, and "
        "the p of McNemar's exact test on them. With one greedy sample it is the classical test.",
        f"verdict: better or worse where the p of the paired bootstrap, after Holm's correction over all {tests} "
        f"differences of the table, is below {1 - level:.3g}; else within noise. Intervals are not corrected.",
    ]
    if len(comparisons) > 1:
        said.append("all sets: all problems together, each with the same weight, so large sets count more.")
    return said


def caption(comparisons: Sequence[SetComparison], runs: Sequence[str], level: float) -> str:
    """What to know to read the table.

    Args:
        comparisons: What `compare` found.
        runs: Names of the runs.
        level: Of the intervals.
    """
    tests = sum(len(one.differences) for one in comparisons)
    holm = f", after Holm's correction over these {tests} differences," if tests > 1 else ""
    return (
        f"Differences are to {runs[0]}. Brackets: {100 * level:g} % intervals over problems. p: paired bootstrap. "
        f"Sample 0: problems that only this run (+) or only {runs[0]} (-) has right in its first sample, "
        f"and the p of McNemar's exact test. Verdict: better or worse where p{holm} is below {1 - level:.3g}."
    )


def _lines(comparison: SetComparison, runs: Sequence[str], level: float) -> Iterator[list[str]]:
    """One line a run: name, avg@k, difference, p, McNemar, verdict."""
    yield [runs[0], _share(comparison.figures[0]), "", "", "", ""]
    for run, figure, difference in zip(runs[1:], comparison.figures[1:], comparison.differences, strict=True):
        test = difference.mcnemar
        paired = f"+{test.gained} -{test.lost} p {_p(test.p)}"
        yield [run, _share(figure), _signed(difference), _p(difference.p), paired, difference.verdict(level)]


def _title(comparison: SetComparison) -> str:
    return f"{comparison.name} ({comparison.problems})"


def _share(figure: Figure) -> str:
    return f"{100 * figure.mean:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def _signed(difference: Difference) -> str:
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _size(difference: Difference) -> str:
    """The difference without its sign, in points."""
    sign = 1 if difference.mean > 0 else -1
    low, high = sorted((100 * sign * difference.low, 100 * sign * difference.high))
    return f"{100 * abs(difference.mean):.1f} points [{low:.1f}, {high:.1f}]"


def _p(p: float) -> str:
    if p < 0.0001:
        return "<1e-4"
    return f"{p:.3f}" if p >= 0.0995 else f"{p:.2g}" if p >= 0.001 else f"{p:.4f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
