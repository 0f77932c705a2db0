"""The two errors that gopd raises on purpose; the command line turns each into one line and an exit code."""


class InputError(ValueError):
    """What the user gave cannot work: names the file, row or key and what to do (exit code 2).

    Raised before any weights load.
    """


class TrainingError(RuntimeError):
    """A run had to stop: says why, and that the last checkpoint is intact (exit code 1)."""
