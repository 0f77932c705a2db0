"""Rows as a verifier leaves them, without a model."""

from collections.abc import Sequence

from gopd_lightning.records import Completion, Prompt, Row, Verdict


def prompt(uid: int, dataset: str = "math") -> Prompt:
    return Prompt(uid=uid, domain=dataset, dataset=dataset, text=f"question {uid}", ids=[1, 2])


def rows(
    uid: int, rewards: Sequence[float | None], votes: Sequence[str | None] = (), dataset: str = "math"
) -> list[Row]:
    """The samples of one prompt; sample k is k + 1 tokens long and the last one is cut."""
    found = []
    for k, reward in enumerate(rewards):
        vote = votes[k] if votes else None
        verdict = None if reward is None else Verdict(reward=reward, vote=vote, crashed=vote == "crashed")
        completion = Completion(ids=[5] * (k + 1), finished=k + 1 < len(rewards))
        found.append(Row(prompt=prompt(uid, dataset), completion=completion, sample=k, verdict=verdict))
    return found
