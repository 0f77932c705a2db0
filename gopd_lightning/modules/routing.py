"""Which frozen models speak for which rows: one teacher a domain, its reference and its lambda."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gopd_lightning.errors import InputError
from gopd_lightning.models.specs import ModelSpec, StudentSpec, TeacherSpec

STUDENT_INIT = "student_init"


@dataclass(frozen=True, kw_only=True)
class Route:
    """The frozen models of one domain, by name in the bank.

    Attributes:
        teacher: Name of the teacher.
        reference: Name of the reference; None exactly when `reward_scale` is 1, where it cancels.
        reward_scale: lambda.
    """

    teacher: str
    reference: str | None
    reward_scale: float

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that score the domain's rows."""
        return (self.teacher,) if self.reference is None else (self.teacher, self.reference)


@dataclass(kw_only=True)
class Routing:
    """All routes of a run, and the frozen models that they need and no others."""

    routes: dict[str, Route] = field(default_factory=dict)
    specs: dict[str, ModelSpec] = field(default_factory=dict)


def build_routing(
    student: StudentSpec,
    teachers: Sequence[TeacherSpec],
    reference: ModelSpec | str | None,
    reward_scale: float,
) -> Routing:
    """Resolve teachers, references and lambdas.

    Args:
        student: The student; `reference: student_init` stands for the weights at its path.
        teachers: One a domain.
        reference: The common reference: `student_init`, a model, or None.
        reward_scale: The common lambda, where a teacher names none of its own.

    Returns:
        A route a domain, and the models to load. A reference is named only where lambda is not 1.

    Raises:
        InputError: No teacher, two teachers for one domain, or lambda != 1 without a reference.
    """
    if not teachers:
        raise InputError("model.teachers is empty: name at least one teacher with its domain and path")
    common = _common_reference(student, reference)
    routing = Routing()
    for teacher in teachers:
        if teacher.domain in routing.routes:
            raise InputError(f"model.teachers: two teachers for the domain {teacher.domain!r}; give it one")
        _add_route(routing, teacher, common, reward_scale)
    return routing


def _add_route(routing: Routing, teacher: TeacherSpec, common: ModelSpec | None, reward_scale: float) -> None:
    """Add one teacher's route and the models that it needs."""
    scale = reward_scale if teacher.reward_scale is None else teacher.reward_scale
    name, reference = f"teacher:{teacher.domain}", None
    routing.specs[name] = teacher
    if scale != 1.0:
        spec = teacher.reference or common
        if spec is None:
            raise InputError(
                f"reward_scale is {scale} for the domain {teacher.domain!r}, which needs a reference: "
                "set model.reference to student_init or a model (only 1 does without)"
            )
        reference = f"reference:{teacher.domain}" if teacher.reference else "reference"
        routing.specs[reference] = spec
    routing.routes[teacher.domain] = Route(teacher=name, reference=reference, reward_scale=scale)


def _common_reference(student: StudentSpec, reference: ModelSpec | str | None) -> ModelSpec | None:
    """The run's reference as a model."""
    if not isinstance(reference, str):
        return reference
    if reference != STUDENT_INIT:
        raise InputError(f"model.reference is {reference!r}: write {STUDENT_INIT}, null, or path: MODEL")
    return ModelSpec(path=student.path, chat_template_kwargs=student.chat_template_kwargs)
