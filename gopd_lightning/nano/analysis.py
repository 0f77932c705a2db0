"""Which habits a prompt invites, so that accuracy can be split by them."""

import re

from gopd_lightning.nano.habits import CODE_HABITS

_LATER_PRODUCT = re.compile(r"([+-])\d+\*")
_STORY_HABITS = {" lends ": "lend", " gives ": "give", " pays ": "pay"}


def habits_in(prompt: str) -> set[str]:
    """Habits that the phrases of a prompt invite.

    Args:
        prompt: Text of a prompt of either task.

    Returns:
        Keys of `gopd_lightning.nano.habits.HABITS`; empty for a prompt that the corpus always reads rightly.
    """
    if prompt.startswith("#"):
        return {habit for habit in CODE_HABITS if habit in prompt}
    product = _LATER_PRODUCT.search(prompt)
    if product:
        return {"ltr" + product[1]}
    return {habit for word, habit in _STORY_HABITS.items() if word in prompt}
