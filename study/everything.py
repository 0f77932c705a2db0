"""The whole study: `python study/everything.py`; with names of groups only these: `... early/exopd-2 early/opd`.

Every run goes through the `gopd` command, two side by side; what is there is not run again, and a stopped study goes on
where it was. `... report` runs nothing and makes the documents from what is there. `STUDY=quick` in the environment
takes the small plan, checks a few directions and exits with 1 where they are not there. All runs lie in runs/study; of
the full plan docs/study.md and docs/study/ are made.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from study.design import Design
from study.document import write_documents
from study.plan import MODES, Mode
from study.results import gather
from study.running import Runner, with_needs


def chosen_mode() -> tuple[str, Mode]:
    """The mode that the environment names.

    Raises:
        SystemExit: An unknown one.
    """
    name = os.environ.get("STUDY", "full")
    if name not in MODES:
        sys.exit(f"STUDY={name} is unknown; known: {', '.join(MODES)}")
    return name, MODES[name]


def report(design: Design, docs: Path) -> dict[str, object]:
    """Write results.json and the documents from what has finished.

    Args:
        design: All runs.
        docs: Folder for the documents.

    Returns:
        The content of results.json.
    """
    results = gather(design)
    design.mode.work.mkdir(parents=True, exist_ok=True)
    file = design.mode.work / "results.json"
    part = file.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(part, file)
    write_documents(results, docs)
    return results


def not_shown(results: dict[str, object]) -> list[str]:
    """Directions that even the quick plan must show, and does not, in a line each."""
    lines = []
    for direction in results["directions"]:  # type: ignore[attr-defined]
        said = "not measured" if direction["effect"] is None else f"{direction['effect']:+.1f} points"
        print(f"{'shown' if direction['shown'] else 'NOT SHOWN'}: {direction['statement']} ({said})")
        if not direction["shown"]:
            lines.append(direction["statement"])
    return lines


def main() -> None:
    """Run, report, and say what failed."""
    os.chdir(Path(__file__).resolve().parents[1])
    name, mode = chosen_mode()
    design = Design(mode)
    groups = sys.argv[1:]
    runner = Runner(design, set() if groups == ["report"] else with_needs(design, groups))
    runner.run()
    results = report(design, Path("docs") if name == "full" else mode.work / "docs")
    missing = [] if groups or name == "full" else not_shown(results)
    for run, why in runner.failures.items():
        print(f"FAILED {run}: {why}", file=sys.stderr)
    sys.exit(bool(runner.failures or missing))


if __name__ == "__main__":
    main()
