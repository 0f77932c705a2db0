"""How a YAML names models: student, teachers and reference."""

from dataclasses import dataclass, field
from typing import Any

from gopd_lightning.errors import InputError


@dataclass(kw_only=True)
class ModelSpec:
    """A Hugging Face folder or hub id, a GGUF file, or a PEFT adapter on such a model.

    Args:
        path: Folder, hub id, or `.gguf` file.
        dtype: float32, bfloat16 or float16; the student should stay float32 (its optimizer works on it).
        chat_template_kwargs: Arguments of this model's chat template, such as enable_thinking: false.
        url: A vLLM server that serves this model, such as http://host:8000, for a teacher or reference that is too
            large to load: see `models.served.VLLMTeacher`. Then `path` is only looked at (configuration, tokenizer)
            and `dtype` is the server's.
    """

    path: str
    dtype: str = "float32"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    url: str | None = None


@dataclass(kw_only=True)
class StudentSpec(ModelSpec):
    """The model that is trained.

    Args:
        lora: Arguments of `peft.LoraConfig` (r, lora_alpha, target_modules, ...) to train a new adapter on
            `path` instead of all weights.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
    """

    lora: dict[str, Any] | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Refuse a student elsewhere.

        Raises:
            InputError: It has a URL.
        """
        if self.url is not None:
            raise InputError("model.student.url: only teachers and references may be served; the student is trained")


@dataclass(kw_only=True)
class TeacherSpec(ModelSpec):
    """A frozen model that scores the rows of one domain.

    Args:
        domain: The rows that are its own.
        reference: Its own reference (reward correction: the model it was trained from); None takes the run's.
        reward_scale: Its own lambda; None takes the run's.
    """

    domain: str
    reference: ModelSpec | None = None
    reward_scale: float | None = None
