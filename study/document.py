"""The documents of the study, made from `results.json` and the fixed words of template.md."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.intervals import FAILS, HOLDS, MISSING, OPEN
from study.pictures import draw_all
from study.plan import DOMAINS

Results = Mapping[str, Any]
TEMPLATE = Path(__file__).parent / "template.md"
ACCURACY = ("sampled", "greedy")
VERDICTS = (HOLDS, FAILS, OPEN, MISSING)
UNITS = {"sampled": "T = 1", "greedy": "greedy", "length": "tokens", "entropy": "nats"}
DIGITS = {"sampled": 1, "greedy": 1, "length": 2, "entropy": 4}
CELLS = ["math T = 1", "math greedy", "code T = 1", "code greedy"]
NONE_YET = "Nothing of this has been measured yet."


def write_documents(results: Results, docs: Path) -> None:
    """Write study.md, and beside it study/ with claims.json, results.json and the pictures.

    Args:
        results: The content of `results.json`.
        docs: Folder for the documents.
    """
    folder = docs / "study"
    draw_all(results, folder)
    _write(folder / "results.json", json.dumps(results, indent=1) + "\n")
    _write(folder / "claims.json", json.dumps(results["claims"], indent=1, ensure_ascii=False) + "\n")
    parts = {
        "missing": _missing(results),
        "verdicts": _verdicts(results),
        "claims": claims_table(results),
        "single": _single(results),
        "early": _methods(results, "early"),
        "long": _methods(results, "long"),
        "large": _methods(results, "large"),
        "strong": _methods(results, "strong"),
        "prediction": _prediction(results),
        "choices": _choices(results),
        "stops": _stops(results),
        "facts": _facts(results),
    }
    text = TEMPLATE.read_text()
    for name, content in parts.items():
        text = text.replace(f"{{{{{name}}}}}", content)
    _write(docs / "study.md", text)


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.part")
    part.write_text(text)
    os.replace(part, file)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        head: Titles of its columns.
        rows: Cells.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if len(lines) > 2 else NONE_YET


def claims_table(results: Results) -> str:
    """Every claim with its verdict, effect and interval in each column."""
    rows = []
    for claim in results["claims"]:
        columns = claim["measures"]
        accuracy = set(ACCURACY) <= set(columns)
        cells = [_judged(claim, name) for name in (ACCURACY if accuracy else columns)] + ["—"] * (not accuracy)
        counts = sorted({p["seeds"] for c in columns.values() for p in c["parts"] if p and p["seeds"]})
        seeds = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1]))) if counts else "—"
        shown = f"[picture](study/{claim['picture']})"
        rows.append([f"**{claim['claim']}**: {claim['statement']}", claim["source"], *cells, seeds, shown])
    return table(["claim", "source", "T = 1", "greedy", "seeds", "shown"], rows)


def _verdicts(results: Results) -> str:
    """The names of the claims by verdict, a line a column."""
    lines = []
    for measure in ACCURACY:
        judged = [(c["measures"].get(measure, {}).get("verdict"), c["claim"]) for c in results["claims"]]
        found = {answer: [name for given, name in judged if given == answer] for answer in VERDICTS}
        said = "; ".join(f"{answer} ({len(names)}): {', '.join(names)}" for answer, names in found.items() if names)
        lines.append(f"- **{UNITS[measure]}**: {said}.")
    return "\n".join(lines)


def _judged(claim: Mapping[str, Any], measure: str) -> str:
    column = claim["measures"][measure]
    digits, unit = DIGITS[measure], "" if measure in ACCURACY else f" {UNITS[measure]}"
    effects = [
        f"{p['mean']:+.{digits}f} [{p['low']:+.{digits}f}, {p['high']:+.{digits}f}]{unit}"
        for p in column["parts"]
        if p is not None
    ]
    return "<br>".join([f"**{column['verdict']}**", *effects])


def _single(results: Results) -> str:
    names = sorted((n for n in results["groups"] if n.startswith("single/")), key=lambda n: float(n[7:]))
    rows = []
    for name in names:
        figures = results["groups"][name]["figures"]
        last = {key: values[-5:] for key, values in results["steps"][name].items()}
        cells = [_cell(figures.get(domain), measure) for domain in DOMAINS for measure in ACCURACY]
        cells += [" / ".join(_cell(figures.get(domain), m) for domain in DOMAINS) for m in ("length", "entropy")]
        cells += [" / ".join(_mean(last.get(f"{kl}/{d}")) for d in DOMAINS) for kl in ("kl_teacher", "kl_reference")]
        rows.append([name[7:], *cells, f"{len(results['groups'][name]['seeds'])}"])
    more = ["tokens", "entropy", "KL to teacher", "KL to reference", "seeds"]
    return table(["λ", *CELLS, *more], [*_plain(results, ("base", "early/teachers")), *rows])


def _plain(results: Results, names: Sequence[str]) -> list[list[str]]:
    """Rows of models that were not trained here, in the table of single teachers."""
    rows = []
    for name in names:
        if name in results["groups"]:
            figures = results["groups"][name]["figures"]
            cells = [_cell(figures.get(domain), measure) for domain in DOMAINS for measure in ACCURACY]
            cells += [" / ".join(_cell(figures.get(domain), m) for domain in DOMAINS) for m in ("length", "entropy")]
            rows.append([name.replace("early/teachers", "teachers"), *cells, "—", "—", "—"])
    return rows


def _methods(results: Results, kind: str) -> str:
    extra = ["base"] if kind != "strong" else ["base", "larger-base"]
    names = [*extra, f"{kind}/teachers", *(n for n in results["groups"] if n.startswith(f"{kind}/"))]
    rows = []
    for name in dict.fromkeys(name for name in names if name in results["groups"]):
        group = results["groups"][name]
        cells = [_cell(group["figures"].get(domain), measure) for domain in DOMAINS for measure in ACCURACY]
        cells += [_interval(group["figures"][measure]) for measure in ACCURACY]
        seeds = "—" if "weights" in name or not group["seeds"] else f"{len(group['seeds'])}"
        cost = [f"{group['tokens'] / 1000:.0f}k" if group["tokens"] else "0", f"{group['seconds']:.0f}"]
        length = _cell(group["figures"], "length")
        cost = cost if "/" in name and not name.endswith("teachers") else ["—", "—"]
        rows.append([name.rpartition("/")[2], *cells, length, seeds, *cost])
    head = ["method", *CELLS, "both T = 1 [95 %]", "both greedy [95 %]", "tokens", "seeds"]
    head += ["tokens generated", "seconds"]
    return table(head, rows)


def _cell(figures: Mapping[str, Any] | None, measure: str) -> str:
    return "—" if figures is None else f"{figures[measure]['mean']:.{1 if measure != 'entropy' else 3}f}"


def _interval(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.1f} [{figure['low']:.1f}, {figure['high']:.1f}]"


def _mean(values: Sequence[float] | None) -> str:
    return f"{sum(values) / len(values):.4f}" if values else "—"


def _prediction(results: Results) -> str:
    found = results["predictions"]["distance"]
    rows = [[kind, str(one["pairs"]), f"{one['sampled']:.1f}", f"{one['greedy']:.1f}"] for kind, one in found.items()]
    return table(["experts", "pairs of target and student", "T = 1, points", "greedy, points"], rows)


def _choices(results: Results) -> str:
    rows = [
        [name, ", ".join(f"{value}: {score:.1f}" for value, score in one["tried"].items()), f"{one['taken']:g}"]
        for name, one in results["choices"]["grids"].items()
    ]
    return table(["method", "tried: validation accuracy, mean of both columns and domains", "taken"], rows)


def _stops(results: Results) -> str:
    rows = [
        [name, ", ".join(f"{step}: {100 * score:.0f}" for step, score in one["greedy"].items()), str(one["taken"])]
        for name, one in results["choices"]["stops"].items()
    ]
    return table(["experts", "greedy validation accuracy by step, %", "taken"], rows)


def _missing(results: Results) -> str:
    names = results["missing"]
    if not names:
        return "Every planned run is in these tables."
    return f"**Not all planned runs are in these tables.** No run has finished yet of: {', '.join(names)}."


def _facts(results: Results) -> str:
    design, machine = results["design"], results["machine"]
    return (
        f"{len(results['runs'])} of {design['runs']} runs, {results['seconds'] / 3600:.1f} core-hours "
        f"({design['planned_seconds'] / 3600:.1f} planned) on {machine['cores']} cores, torch {machine['torch']}; "
        f"{design['steps']} steps a student; {design['test_prompts']:,} test prompts a domain, each answered twice at "
        "temperature 1 and once greedily"
    )
