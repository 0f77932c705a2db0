"""Small stand-ins for a design: runs that are one-line Python programs."""

from types import SimpleNamespace

from study.commands import Command, Run


def program(work, name, text, needs=(), group=""):
    """A run that writes `done` in its folder after `text`."""
    result = work / name / "done"
    code = f"import pathlib\n{text}\npathlib.Path({str(result)!r}).write_text('x')"
    command = Command(words=("python", "-c", code), result=result)
    return Run(name=name, commands=(command,), seconds=1.0, needs=tuple(needs), group=group)


def design(work, *runs):
    """A design of these runs."""
    return SimpleNamespace(mode=SimpleNamespace(work=work, grids={}, experts={}), runs=runs)
