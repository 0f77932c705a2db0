"""One row of a data file: gopd's own flat fields, or verl's, read into a `RawRow`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gopd_lightning.errors import InputError

Messages = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class RawRow:
    """A row as its file gives it, before any tokenizer has seen it.

    Attributes:
        id: The row's own name, or its number.
        prompt: Text, or chat messages with `role` and `content`.
        domain: What the row is about.
        answer: Ground truth for the verifier; anything that is not text stands here as JSON.
        response: A given response (supervised rows).
        source: File and row, for error messages.
    """

    id: str
    prompt: str | Messages
    domain: str
    answer: str | None
    response: str | None
    source: str


def parse_row(row: Any, domain: str | None, source: str) -> RawRow:
    """Check one row and take the fields that gopd knows.

    Flat fields are `id`, `prompt`, `domain`, `answer`, `response`. Of verl's, `reward_model.ground_truth` is the
    answer, `extra_info.opd_teacher` the domain, and `ability` the domain when nothing else names one. A row
    without an `id` takes the last word of `source`, its number.

    Args:
        row: The row, an object with string keys.
        domain: Domain that the data set was given in the configuration.
        source: File and row, for messages.

    Returns:
        The row.

    Raises:
        InputError: A field is missing, empty or of the wrong type, or two fields name different domains.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{source}: expected an object with a `prompt`, found {type(row).__name__}")
    return RawRow(
        id=str(source.rpartition(" ")[2] if row.get("id") is None else row["id"]),
        prompt=_prompt(row.get("prompt"), source),
        domain=_domain(row, domain, source),
        answer=_answer(row, source),
        response=_text(row.get("response"), "response", source),
        source=source,
    )


def _prompt(prompt: Any, source: str) -> str | Messages:
    if hasattr(prompt, "tolist"):  # numpy, from parquet written through pandas
        prompt = prompt.tolist()
    if prompt is None:
        raise InputError(f"{source}: `prompt` is missing")
    if isinstance(prompt, str) and prompt.strip():
        return prompt
    if isinstance(prompt, (list, tuple)) and prompt:
        return [_message(message, source) for message in prompt]
    if isinstance(prompt, (str, list, tuple)):
        raise InputError(f"{source}: `prompt` is empty")
    raise InputError(f"{source}: `prompt` must be text or a list of messages, not {type(prompt).__name__}")


def _message(message: Any, source: str) -> dict[str, str]:
    role, content = (message.get(key) if isinstance(message, Mapping) else None for key in ("role", "content"))
    if not isinstance(role, str) or not isinstance(content, str):
        raise InputError(f"{source}: every message of `prompt` needs a `role` and a `content`, both text")
    return {"role": role, "content": content}


def _domain(row: Mapping[str, Any], given: str | None, source: str) -> str:
    own = _text(row.get("domain"), "domain", source)
    teacher = _text(_nested(row, "extra_info", source).get("opd_teacher"), "extra_info.opd_teacher", source)
    named = {
        "domain": own,
        "extra_info.opd_teacher": teacher,
        "the source's `domain`": given,
    }
    found = {name: value for name, value in named.items() if value}
    if len(set(found.values())) > 1:
        says = ", ".join(f"{name} = {value!r}" for name, value in found.items())
        raise InputError(f"{source}: contradicting domains: {says}; make them agree")
    fallback = _text(row.get("ability"), "ability", source)
    if not found and not fallback:
        raise InputError(f"{source}: no domain; add a `domain` field, or `domain:` to the source in the configuration")
    return next(iter(found.values()), fallback or "")


def _answer(row: Mapping[str, Any], source: str) -> str | None:
    answer = row.get("answer")
    if answer is None:
        answer = _nested(row, "reward_model", source).get("ground_truth")
    if answer is None or isinstance(answer, str):
        return answer
    try:
        return json.dumps(answer, ensure_ascii=False)
    except TypeError:
        raise InputError(f"{source}: `answer` must be text or JSON, not {type(answer).__name__}") from None


def _nested(row: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    value = row.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{source}: `{key}` must be an object, not {type(value).__name__}")
    return value


def _text(value: Any, key: str, source: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{source}: `{key}` must be text, not {type(value).__name__}")
