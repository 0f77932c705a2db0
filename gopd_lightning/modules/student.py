"""The student as a LightningModule: how it reads prompts, how it loads with its frozen models, how it is evaluated."""

import atexit
import gc
import time
from functools import cached_property

from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import distributed, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from gopd_lightning.data.chat import PromptEncoder
from gopd_lightning.errors import InputError
from gopd_lightning.models.folders import check_model, check_same_tokens, load_tokenizer, stop_ids
from gopd_lightning.models.frozen import FrozenBank
from gopd_lightning.models.loading import load_student
from gopd_lightning.models.specs import StudentSpec
from gopd_lightning.modules.evaluation import EvaluationMetrics
from gopd_lightning.modules.routing import Routing
from gopd_lightning.records import Batch
from gopd_lightning.rollouts.engine import Sampling, Vocabulary


class StudentModule(LightningModule):
    """A student and its frozen models, without a way to train yet.

    Frozen models are held in a bank that is not registered, so that no checkpoint holds them.

    Args:
        student: The model to train.
        routing: The frozen models by domain; empty for methods that need none.
        temperature: Softmax temperature of the student's policy: sampled with and scored at.
        frozen_temperature: Temperature that teachers and references are scored at.
    """

    max_loaded_models: int | None = None  # see `FrozenBank`

    def __init__(self, student: StudentSpec, routing: Routing, temperature: float, frozen_temperature: float) -> None:
        super().__init__()
        self.spec = student
        self.routing = routing
        self.temperature = temperature
        self.frozen_temperature = frozen_temperature
        self.student: nn.Module | None = None
        self.frozen: FrozenBank | None = None

    # What the data module and the rollout callback ask, before any weights load

    @property
    def needs(self) -> frozenset[str]:
        """What training needs of each row (see `Objective.needs`); nothing here, where nothing is trained."""
        return frozenset()

    @property
    def domains(self) -> set[str] | None:
        """The domains that have a teacher; None when any domain will do."""
        return set(self.routing.routes) or None

    @cached_property
    def config(self) -> PretrainedConfig:
        """The student's configuration, after all models of the run have been looked at.

        Raises:
            InputError: A model that cannot be loaded, or one whose tokens are not the student's.
        """
        config = check_model(self.spec, "model.student")
        for name, spec in self.routing.specs.items():
            check_model(spec, name)
            check_same_tokens(self.tokenizer, load_tokenizer(spec, name), name, spec.path)
        return config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer."""
        return load_tokenizer(self.spec, "model.student")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Real token ids and the ids that end a response."""
        size = min(max(self.tokenizer.get_vocab().values()) + 1, self.config.vocab_size)
        return Vocabulary(size=size, stop_ids=stop_ids(self.spec, self.tokenizer))

    @cached_property
    def encoders(self) -> dict[str, PromptEncoder]:
        """How each model reads prompts: the student, and the frozen models that read them differently."""
        assert self.config is not None  # looks at every model first
        encoders = {"student": PromptEncoder(self.tokenizer, self.spec.chat_template_kwargs, "model.student")}
        for name, spec in self.routing.specs.items():
            tokenizer = load_tokenizer(spec, name)
            same_template = tokenizer.chat_template == self.tokenizer.chat_template
            if not (same_template and spec.chat_template_kwargs == self.spec.chat_template_kwargs):
                encoders[name] = PromptEncoder(tokenizer, spec.chat_template_kwargs, name)
        return encoders

    def check_sampling(self, sampling: Sampling) -> None:
        """Refuse a rollout whose samples are not from the policy that this module scores.

        Raises:
            InputError: Naming the setting.
        """
        if sampling.temperature != self.temperature:
            raise InputError(
                f"sampling.temperature is {sampling.temperature}, but model.temperature, at which the student "
                f"is scored, is {self.temperature}: set both to the same"
            )

    # Building

    def configure_model(self) -> None:
        """Load the student and, for fitting, the frozen models; called by Lightning on every rank.

        Raises:
            InputError: A student with an adapter under FSDP2.
        """
        strategy = self.trainer.strategy
        if self.student is None:
            self.student = load_student(self.spec, getattr(strategy, "place", None))  # FSDP2 shards it
        if self.frozen is None and self.routing.specs and self.trainer.state.fn == TrainerFn.FITTING:
            self.frozen = FrozenBank(
                self.routing.specs,
                self.vocabulary.size,
                strategy.root_device,
                self.frozen_temperature,
                self.max_loaded_models,
                place=getattr(strategy, "place_frozen", None),
            )

    def teardown(self, stage: str) -> None:
        """Have the process group ended before the interpreter, once a run has come to its end.

        Lightning does so for NCCL alone. A thread of gloo that lets go of its last tensor when Python is already
        gone ends the rank with "terminate called without an active exception", and the launcher calls a finished run
        failed (seen once in some hundred runs). A run that fails is left alone: it could wait here for its peers.
        """
        if distributed.is_available() and distributed.is_initialized():
            atexit.unregister(_end_process_group)
            atexit.register(_end_process_group)

    # Evaluation: the same rows, graded

    def on_validation_epoch_start(self) -> None:
        """Start counting."""
        self._metrics = EvaluationMetrics(self.trainer.datamodule.prompts["val"], self.device)  # type: ignore[attr-defined]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of graded rows."""
        self._metrics.update(batch.rows)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of every data set."""
        self.log_dict(self._metrics.compute("val"), batch_size=1)

    def on_test_epoch_start(self) -> None:
        """Start counting."""
        self._metrics = EvaluationMetrics(self.trainer.datamodule.prompts["test"], self.device)  # type: ignore[attr-defined]

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch of graded rows."""
        self._metrics.update(batch.rows)

    def on_test_epoch_end(self) -> None:
        """Log the figures of every data set."""
        self.log_dict(self._metrics.compute("test"), batch_size=1)

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """The batch with its sampled rows, which `gopd_callbacks.Rollout` writes into a file."""
        return batch


def _end_process_group() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
        gc.collect()  # device meshes hold groups in circles
        time.sleep(0.5)  # without the interpreter's lock: threads that still want it to let go of a tensor get it
