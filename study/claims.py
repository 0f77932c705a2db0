"""The claims under test, as a plain list, and the directions that the quick mode insists on.

A part is a contrast of groups (`weights`) and the region in which the claim says that it lies: above 0, below 0,
within a margin. Shares count in points, lengths in tokens, entropies in nats a token. A claim holds when the intervals
of all of its parts lie within their regions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from study.plan import DOMAINS

MORE, LESS = (0.0, inf), (-inf, 0.0)
SAME, AT_LEAST = (-2.0, 2.0), (-1.0, inf)
NOTHING = {"sampled": 1.0, "greedy": 1.0, "length": 0.25, "entropy": 0.001}
ACCURACY = ("sampled", "greedy")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One contrast of a claim.

    Attributes:
        weights: Weight of each group.
        region: Where the claim says that the contrast lies.
        domains: Over which is averaged.
    """

    weights: Mapping[str, float]
    region: tuple[float, float]
    domains: tuple[str, ...] = DOMAINS


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that was said, in a form that can turn out wrong.

    Attributes:
        name: Short, unique.
        statement: In words.
        source: Who says so: a section or table of arXiv 2602.12125, or `trial`, this project's first trials.
        parts: All of them must hold.
        measures: In which columns it is judged, each by itself.
        picture: Where it can be seen.
    """

    name: str
    statement: str
    source: str
    parts: tuple[Part, ...]
    picture: str
    measures: tuple[str, ...] = ACCURACY


def versus(a: str, b: str, region: tuple[float, float], domains: tuple[str, ...] = DOMAINS) -> Part:
    """The part that says where group a minus group b lies."""
    return Part(weights={a: 1, b: -1}, region=region, domains=domains)


def gain(kind: str, region: tuple[float, float]) -> Part:
    """What lambda = 2 brings over lambda = 1 with one kind of experts."""
    return versus(f"{kind}/exopd-2", f"{kind}/opd", region)


STEPS_TO_ONE = tuple(
    versus(f"single/{high:g}", f"single/{low:g}", MORE)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1))
)
SHRINKS = Part(
    weights={"early/exopd-1.25": 1, "early/opd": -1, "long/exopd-1.25": -1, "long/opd": 1},
    region=MORE,
)

CLAIMS = (
    Claim(
        name="interpolation",
        statement="Below λ = 1 a student lies between reference and teacher, and every quarter of λ brings it on.",
        source="Figure 2",
        parts=STEPS_TO_ONE,
        picture="single.png",
    ),
    Claim(
        name="opd-lands-single",
        statement="At λ = 1 a student lands on its teacher (within 2 points).",
        source="Figure 2, Table 2",
        parts=(versus("single/1", "early/teachers", SAME),),
        picture="single.png",
    ),
    Claim(
        name="opd-length",
        statement="At λ = 1 a student's responses are as long as its teacher's (within half a token).",
        source="Figure 4",
        parts=(versus("single/1", "early/teachers", (-0.5, 0.5)),),
        measures=("length",),
        picture="single.png",
    ),
    Claim(
        name="extrapolation-single",
        statement="λ = 1.25 beats λ = 1 with a single teacher.",
        source="Table 2, Figure 2",
        parts=(versus("single/1.25", "single/1", MORE),),
        picture="single.png",
    ),
    Claim(
        name="beyond-teacher-single",
        statement="λ = 1.25 beats the teacher itself, in both domains.",
        source="Table 2",
        parts=tuple(versus("single/1.25", "early/teachers", MORE, (domain,)) for domain in DOMAINS),
        picture="single.png",
    ),
    Claim(
        name="cliff",
        statement="λ = 1.5 is worse than 1.25, and λ = 2 is worse than 1.5.",
        source="Figure 2",
        parts=(versus("single/1.5", "single/1.25", LESS), versus("single/2", "single/1.5", LESS)),
        picture="single.png",
    ),
    Claim(
        name="longer",
        statement="Extrapolation makes responses longer: λ = 1.25 more than 1, and λ = 1.5 more than 1.25.",
        source="Figures 3 and 5",
        parts=(versus("single/1.25", "single/1", MORE), versus("single/1.5", "single/1.25", MORE)),
        measures=("length",),
        picture="single.png",
    ),
    Claim(
        name="entropy",
        statement="The student's entropy is higher under ExOPD (λ = 1.25) than under OPD.",
        source="Figure 5",
        parts=(versus("early/exopd-1.25", "early/opd", MORE),),
        measures=("entropy",),
        picture="steps.png",
    ),
    Claim(
        name="opd-lands-merge",
        statement="Merging two experts at λ = 1 lands on both (within 2 points each).",
        source="Table 2",
        parts=tuple(versus("early/opd", "early/teachers", SAME, (domain,)) for domain in DOMAINS),
        picture="merge.png",
    ),
    Claim(
        name="extrapolation-merge",
        statement="ExOPD with λ = 1.25 beats OPD in merging.",
        source="Table 2",
        parts=(versus("early/exopd-1.25", "early/opd", MORE),),
        picture="merge.png",
    ),
    Claim(
        name="extrapolation-merge-2",
        statement="ExOPD with λ = 2, the default of this project's nano run, beats λ = 1.25.",
        source="trial",
        parts=(versus("early/exopd-2", "early/exopd-1.25", MORE),),
        picture="merge.png",
    ),
    Claim(
        name="beyond-both-teachers",
        statement="The student of ExOPD (λ = 1.25) is above the expert of each domain.",
        source="Table 2",
        parts=tuple(versus("early/exopd-1.25", "early/teachers", MORE, (domain,)) for domain in DOMAINS),
        picture="merge.png",
    ),
    Claim(
        name="sft-below-opd",
        statement="Fine-tuning on the experts' responses as they are ends below OPD.",
        source="Table 2",
        parts=(versus("early/sft-raw", "early/opd", LESS),),
        picture="merge.png",
    ),
    Claim(
        name="expo-below-exopd",
        statement="ExPO with the published α of 0.25 and 0.5 ends below ExOPD with λ = 1.25.",
        source="Table 2",
        parts=tuple(versus(f"early/weights-{scale}", "early/exopd-1.25", LESS) for scale in ("1.25", "1.5")),
        picture="merge.png",
    ),
    Claim(
        name="estimators-agree",
        statement="The published estimator ends where the exact one does (λ = 1, 1.25 and 2, within 2 points).",
        source="trial (docs/nano.md)",
        parts=tuple(
            versus(f"early/{name}-sampled", f"early/{name}", SAME) for name in ("opd", "exopd-1.25", "exopd-2")
        ),
        picture="merge.png",
    ),
    Claim(
        name="strong-experts-less",
        statement="With experts trained for long, ExOPD (λ = 1.25) brings less over OPD than with early ones.",
        source="Table 8",
        parts=(SHRINKS,),
        picture="kinds.png",
    ),
    Claim(
        name="long-experts-still",
        statement="With experts trained for long, ExOPD (λ = 1.25) still beats OPD.",
        source="Table 8",
        parts=(versus("long/exopd-1.25", "long/opd", MORE),),
        picture="kinds.png",
    ),
    Claim(
        name="only-early-leave-room",
        statement="Only early experts of small steps leave room: λ = 2 beats λ = 1 with them, and by at most 1 point "
        "with experts trained for long or by large steps.",
        source="trial",
        parts=(gain("early", MORE), gain("long", (-inf, 1.0)), gain("large", (-inf, 1.0))),
        picture="kinds.png",
    ),
    Claim(
        name="weights-match",
        statement="Extrapolating weights as far (λ times the sum of both task vectors) matches or beats ExOPD, "
        "at λ = 1.25 and at 2.",
        source="trial",
        parts=(
            versus("early/weights-2.5", "early/exopd-1.25", AT_LEAST),
            versus("early/weights-4", "early/exopd-2", AT_LEAST),
        ),
        picture="merge.png",
    ),
    Claim(
        name="verified-sft-matches",
        statement="Fine-tuning on verified responses of the same experts matches or beats ExOPD (λ = 2).",
        source="trial",
        parts=(versus("early/sft-verified", "early/exopd-2", AT_LEAST),),
        picture="merge.png",
    ),
    Claim(
        name="strong-sft-below",
        statement="Large into small, fine-tuning on the teachers' responses ends below OPD.",
        source="Table 3",
        parts=(versus("strong/sft-raw", "strong/opd", LESS),),
        picture="strong.png",
    ),
    Claim(
        name="strong-extrapolation",
        statement="Large into small, ExOPD (λ = 1.25, the student's initial weights as reference) beats OPD.",
        source="Table 3",
        parts=(versus("strong/exopd-1.25", "strong/opd", MORE),),
        picture="strong.png",
    ),
    Claim(
        name="correction",
        statement="Reward correction (the teachers' base as reference) adds to ExOPD, at λ = 1.25 and at 1.5.",
        source="Figure 6",
        parts=tuple(
            versus(f"strong/exopd-{scale}-corrected", f"strong/exopd-{scale}", MORE) for scale in ("1.25", "1.5")
        ),
        picture="strong.png",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Direction:
    """What even one seed and a short run must show in greedy accuracy, in points; means are compared, not intervals."""

    statement: str
    weights: Mapping[str, float]
    low: float
    high: float = inf


DIRECTIONS = (
    Direction(
        statement="λ = 1 lands within 8 points of its teachers",
        weights={"early/opd": 1, "early/teachers": -1},
        low=-8,
        high=8,
    ),
    Direction(
        statement="λ = 2 is at least 3 points above λ = 1",
        weights={"early/exopd-2": 1, "early/opd": -1},
        low=3,
    ),
    Direction(statement="λ = 0.5 is above the base", weights={"single/0.5": 1, "base": -1}, low=0),
    Direction(statement="λ = 0.5 is below the teacher", weights={"early/teachers": 1, "single/0.5": -1}, low=0),
)
