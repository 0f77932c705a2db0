"""The whole design on one page: which experts, which methods, how many seeds, steps and prompts, and what it costs.

`design.py` turns this into runs and their commands. Nothing here is chosen while the study runs, but for two things
that validation prompts decide: the setting of each method (`Mode.grids`) and where an expert stops (`Experts.like`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DOMAINS = ("math", "code")
BASE = "assets/nano/base"
DATA = "assets/nano/data"
PER_DOMAIN = 32  # prompts of a step
GROUP = 8  # responses to a prompt in GRPO
SAMPLES = 2  # at temperature 1, of each test prompt; and one greedy answer


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way from experts to one student.

    Attributes:
        scale: lambda of a distillation; of a weight method the factor on the mean task vector; of SFT nothing.
        how: full or sampled (estimators of distillation), raw or verified (rows of SFT), weights.
        corrected: Whether the reference is the teachers' own base and not the student's initial weights.
        tuned_as: The method whose chosen setting is taken; by default its own.
    """

    how: str
    scale: float | None = None
    corrected: bool = False
    tuned_as: str | None = None


METHODS: Mapping[str, Method] = {
    "opd": Method(how="full", scale=1),
    "exopd-1.25": Method(how="full", scale=1.25),
    "exopd-1.5": Method(how="full", scale=1.5, tuned_as="exopd-1.25"),
    "exopd-2": Method(how="full", scale=2),
    "opd-sampled": Method(how="sampled", scale=1),
    "exopd-1.25-sampled": Method(how="sampled", scale=1.25),
    "exopd-2-sampled": Method(how="sampled", scale=2),
    "sft-raw": Method(how="raw"),
    "sft-verified": Method(how="verified"),
    "exopd-1.25-corrected": Method(how="full", scale=1.25, corrected=True, tuned_as="exopd-1.25"),
    "exopd-1.5-corrected": Method(how="full", scale=1.5, corrected=True, tuned_as="exopd-1.25"),
    **{f"weights-{scale:g}": Method(how="weights", scale=scale) for scale in (1, 1.25, 1.5, 2, 2.5, 3, 4)},
}


@dataclass(frozen=True, kw_only=True)
class Experts:
    """One expert a domain.

    Attributes:
        rate: GRPO's learning rate by domain; None: they ship.
        steps: GRPO steps by domain.
        like: Whether each stops where its greedy validation accuracy is nearest to the shipped expert's.
        larger: Whether they come from the larger base.
    """

    rate: Mapping[str, float] | None = None
    steps: Mapping[str, int] = field(default_factory=dict)
    like: bool = False
    larger: bool = False


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One size of the study.

    Attributes:
        work: Folder of all runs.
        steps: Optimizer steps of every distillation and fine-tuning.
        test_prompts: Test prompts a domain.
        val_prompts: Validation prompts a domain.
        seeds: Of every method; 0 is the first.
        more_seeds: Of methods with more, by "<experts>/<method>".
        lambdas: Of the single teachers.
        curve: Lambdas at which the untrained target is sampled, by experts.
        experts: By name.
        methods: Names of the methods by experts.
        grids: Settings tried on validation prompts with seed 100 and the early experts: learning rates, or factors.
            The first is taken where only one stands there.
        larger_steps: Pretraining steps of the larger base.
        minutes: The study ends within this, on two cores.
    """

    work: Path
    steps: int
    test_prompts: int
    val_prompts: int
    seeds: int
    more_seeds: Mapping[str, int]
    lambdas: tuple[float, ...]
    curve: Mapping[str, tuple[float, ...]]
    experts: Mapping[str, Experts]
    methods: Mapping[str, tuple[str, ...]]
    grids: Mapping[str, tuple[float, ...]]
    larger_steps: int
    minutes: float


RATES = {"math": 1.5e-4, "code": 1.2e-4}  # of the shipped experts
TRIPLE = {"math": 4.5e-4, "code": 3.6e-4}
LARGER = {"math": 1.2e-4, "code": 1e-4}
MERGES = ("opd", "exopd-1.25", "exopd-2", "sft-raw", "sft-verified")
WEIGHTS = tuple(name for name in METHODS if name.startswith("weights"))
ESTIMATORS = ("opd-sampled", "exopd-1.25-sampled", "exopd-2-sampled")
CORRECTION = ("exopd-1.25-corrected", "exopd-1.5", "exopd-1.5-corrected")
FULL_RATES, SAMPLED_RATES = (5e-4, 1e-3, 2e-3), (2.5e-4, 5e-4, 1e-3)

FULL = Mode(
    work=Path("runs/study"),
    steps=60,
    test_prompts=1024,
    val_prompts=512,
    seeds=3,
    more_seeds={"early/opd": 5, "early/exopd-1.25": 5, "early/exopd-2": 5},
    lambdas=(0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2),
    curve={
        "early": (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2),
        "long": (1, 1.25, 2),
        "large": (1, 1.25, 2),
        "strong": (1, 1.25, 1.5),
    },
    experts={
        "early": Experts(),
        "long": Experts(rate=RATES, steps={"math": 50, "code": 50}),
        "large": Experts(rate=TRIPLE, steps={"math": 10, "code": 16}, like=True),
        "strong": Experts(rate=LARGER, steps={"math": 20, "code": 30}, like=True, larger=True),
    },
    methods={
        "early": (*MERGES, *ESTIMATORS, *WEIGHTS),
        "long": (*MERGES, *WEIGHTS),
        "large": (*MERGES, *WEIGHTS),
        "strong": ("opd", "exopd-1.25", *CORRECTION, "sft-raw"),
    },
    grids={
        **dict.fromkeys((*MERGES, "sft-raw", "sft-verified"), FULL_RATES),
        **dict.fromkeys(ESTIMATORS, SAMPLED_RATES),
        "weights": (1, 1.25, 1.5, 2, 2.5, 3, 4),
    },
    larger_steps=1250,
    minutes=120,
)

QUICK = Mode(
    work=Path("runs/study/quick"),
    steps=30,
    test_prompts=384,
    val_prompts=256,
    seeds=1,
    more_seeds={},
    lambdas=(0.5,),
    curve={"early": (0.5, 1, 2)},
    experts={
        "early": Experts(),
        "long": Experts(rate=RATES, steps={"math": 3, "code": 3}),
        "large": Experts(rate=TRIPLE, steps={"math": 2, "code": 2}, like=True),
        "strong": Experts(rate=LARGER, steps={"math": 2, "code": 2}, like=True, larger=True),
    },
    methods={
        "early": ("opd", "exopd-2", "sft-raw", "sft-verified", "weights-2"),
        "long": ("weights-2",),
        "large": ("exopd-2",),
        "strong": ("exopd-1.25-corrected",),
    },
    grids={
        "opd": (1e-3,),
        "exopd-1.25": (1e-3,),
        "exopd-2": (1e-3, 2e-3),
        "sft-raw": (1e-3,),
        "sft-verified": (1e-3,),
        "weights": (2,),
    },
    larger_steps=20,
    minutes=10,
)

MODES = {"full": FULL, "quick": QUICK}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Planned seconds on one of two busy cores."""

    start: float = 9.0  # a process: imports, models, the export at its end
    rollout: float = 0.0112  # a response of a distillation: sampled, verified, scored by three models, learned from
    given: float = 0.005  # a given response, learned from
    grpo: float = 0.0078  # a response of GRPO
    sample: float = 0.002  # a sampled and verified response of a measurement
    mixed: float = 0.003  # one of the untrained target, which two models make
    pretrain: float = 0.42  # a step of the larger base
    corpus: float = 40.0  # the corpus and its tokenizer
    larger: float = 1.5  # times, for anything that the larger models do


COSTS = Costs()
