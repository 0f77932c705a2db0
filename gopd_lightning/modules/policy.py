"""A model to evaluate or to sample from, and nothing to train."""

from gopd_lightning.models.folders import model_folder
from gopd_lightning.models.specs import StudentSpec
from gopd_lightning.modules.routing import Routing
from gopd_lightning.modules.student import StudentModule


class Policy(StudentModule):
    """The model of `gopd test` and `gopd predict` when there is no method around it.

    Args:
        student: The model: a Hugging Face folder or hub id, a GGUF file, an adapter, or a run folder.

    Raises:
        InputError: A run folder that has not exported its student.
    """

    def __init__(self, student: StudentSpec) -> None:
        student.path = model_folder(student.path)
        super().__init__(student, Routing(), temperature=1.0, frozen_temperature=1.0)
