"""The one table of the corpus: how often its documents follow each wrong habit, and how noisy they are.

A habit is tied to a phrase of the prompt. Above 50 % it is the mode of what a model learns from the corpus:
its greedy answer is then wrong, and no sharpening of its samples makes it right. The strengths differ on
purpose, so that an expert that stops early has unlearnt some habits and not yet the others.
"""

MATH_HABITS: dict[str, float] = {
    "ltr+": 0.58,  # a+b*c read from left to right
    "ltr-": 0.68,  # a-b*c read from left to right
    "lend": 0.58,  # "lends x" is added
    "give": 0.66,  # "gives x friends y each" takes away y only
    "pay": 0.74,  # "pays x" is added
}

CODE_HABITS: dict[str, float] = {
    "keep above": 0.56,  # >= for >
    "take first": 0.60,  # one too few
    "keep below": 0.62,  # <= for <
    "only over": 0.66,  # >= for >
    "skip first": 0.68,  # one too many
    "only under": 0.72,  # <= for <
    "take last": 0.75,  # drops the first K instead
}

HABITS: dict[str, float] = MATH_HABITS | CODE_HABITS

MATH_NOISE: dict[str, float] = {
    "slip": 0.06,  # one step calculated wrongly
    "misread": 0.08,  # a number read wrongly, or an operation forgotten
    "bare": 0.04,  # the answer without its steps
}

CODE_NOISE: dict[str, float] = {
    "constant": 0.06,
    "operation": 0.08,  # another operation in its place
    "missing": 0.06,
    "order": 0.05,
    "syntax": 0.04,
}
