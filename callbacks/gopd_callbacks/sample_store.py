"""The samples of an evaluation on disk: written as they come, found again after a kill."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from gopd_lightning.records import Completion, Prompt, Row

_ESCAPE = "backslashreplace"  # half a surrogate pair cannot be written; its escape is what JSON would have

_LONGEST_GOLD = 400

Key = tuple[str, str, int]  # data set, row id, sample


class SampleStore:
    """The samples of one evaluated model.

    While it runs every rank appends to a file of its own, one line a sample as soon as the sample is finished and
    once more when it has been graded (the later line counts; a torn last line does not). At the end the lines are
    sorted into one file a data set. Both are read at the start, so a further run samples only what is not there.

    Args:
        folder: Folder of this model under these settings.
        rank: This process.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.records = _read(sorted(folder.glob("*.jsonl")))
        self._file: TextIO = (folder / f"part-rank{rank}.jsonl").open("a", encoding="utf-8", errors=_ESCAPE)
        self._file.write("\n")  # ends a line that was torn by a kill

    def known(self, prompt: Prompt, sample: int, version: int) -> Row | None:
        """A sample that is on disk, not graded; None when it is not, or was of another prompt text.

        Args:
            prompt: The prompt.
            sample: Number of the sample.
            version: Version of the weights, for the completion.
        """
        record = self.records.get((prompt.dataset, prompt.id, sample))
        if record is None or record["prompt_hash"] != prompt_hash(prompt):
            return None
        # Its ids are not kept: what comes after counts tokens and adds up log-probs.
        tokens, logprob = record["tokens"], record.get("logprob")
        completion = Completion(
            ids=range(tokens),
            finished=record["finished"],
            logprobs=None if logprob is None else [logprob / tokens] * tokens,
            version=version,
        )
        return Row(prompt=prompt, completion=completion, sample=sample, text=record["response"])

    def add(self, rows: Iterable[Row], seconds: float | None = None) -> None:
        """Append samples.

        Args:
            rows: The samples, graded or not.
            seconds: How long each took to sample; None keeps what is known.
        """
        for row in rows:
            key = (row.prompt.dataset, row.prompt.id, row.sample)
            took = self.records.get(key, {}).get("seconds", 0.0) if seconds is None else round(seconds, 3)
            self.records[key] = record = _record(row, took)
            self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        """Close this rank's file; what it holds stays."""
        self._file.close()

    def finish(self, prompts: Sequence[Prompt], samples: int) -> dict[str, str]:
        """Sort all ranks' lines into one file a data set, and remove the ranks' own. For one rank, when all are done.

        Args:
            prompts: All prompts, in the order wanted.
            samples: Samples a prompt.

        Returns:
            File name by data set.
        """
        parts = sorted(self.folder.glob("part-rank*.jsonl"))
        records = _read([*sorted(set(self.folder.glob("*.jsonl")) - set(parts)), *parts])
        lines: dict[str, list[str]] = {}
        names = {prompt.dataset: f"{prompt.dataset.replace('/', '_')}.jsonl" for prompt in prompts}
        for prompt in prompts:
            found = [records.pop((prompt.dataset, prompt.id, k)) for k in range(samples)]
            lines.setdefault(names[prompt.dataset], []).extend(map(_line, found))
        # Of an earlier evaluation with more samples, or with rows that are gone: kept, but in nobody's way.
        lines["unused.jsonl"] = [_line(record) for (dataset, _, _), record in records.items() if dataset in names]
        for name, rows in lines.items():
            if rows or (self.folder / name).exists():
                write_whole("".join(rows), self.folder / name)
        for part in parts:
            part.unlink()
        return names


def prompt_hash(prompt: Prompt) -> str:
    """What a model reads, as 16 hexadecimal digits."""
    return hashlib.blake2b(",".join(map(str, prompt.ids)).encode(), digest_size=8).hexdigest()


def write_whole(text: str, file: Path) -> None:
    """Write a text file whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8", errors=_ESCAPE)
    os.replace(temporary, file)


def _record(row: Row, seconds: float) -> dict[str, Any]:
    verdict = row.verdict
    return {
        "set": row.prompt.dataset,
        "id": row.prompt.id,
        "sample": row.sample,
        "prompt": row.prompt.text,
        "gold": _gold(row.prompt.answer),
        "response": row.text,
        "answer": verdict and verdict.answer,
        "reward": verdict and verdict.reward,
        "reason": verdict and verdict.reason,
        "vote": verdict and verdict.vote,
        "crashed": bool(verdict and verdict.crashed),
        "tokens": len(row.completion.ids),
        "logprob": None if row.completion.logprobs is None else math.fsum(row.completion.logprobs),
        "finished": row.completion.finished,
        "seconds": seconds,
        "prompt_hash": prompt_hash(row.prompt),
    }


def _gold(answer: str | None) -> str | None:
    """The right answer as it stands in the data; of the tests of a program, which may be long, a digest."""
    if answer is None or len(answer) <= _LONGEST_GOLD:
        return answer
    return "digest " + hashlib.blake2b(answer.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _read(files: Iterable[Path]) -> dict[Key, dict[str, Any]]:
    records = {}
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                record = _parse(line)
                if record is not None:
                    records[record["set"], record["id"], record["sample"]] = record
    return records


def _parse(line: str) -> dict[str, Any] | None:
    """A record; None for a blank line or one that a kill tore."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "prompt_hash" in record else None
