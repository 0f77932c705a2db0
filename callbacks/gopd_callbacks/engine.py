"""Another rollout engine for a config that names none: what an overlay appends to the list of callbacks."""

from lightning.pytorch import Callback, LightningModule, Trainer

from gopd_callbacks.rollout import Rollout
from gopd_lightning.errors import InputError
from gopd_lightning.rollouts import RolloutEngine


class Engine(Callback):
    """Gives the run's `Rollout` (or `Evaluation`) this engine instead of its own.

    Args:
        engine: What samples.
    """

    def __init__(self, engine: RolloutEngine) -> None:
        self.engine = engine

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Swap the engine before anything is sampled.

        Args:
            trainer: The trainer.
            pl_module: The module.
            stage: fit, validate, test or predict.

        Raises:
            InputError: No callback of the run samples.
        """
        samplers = [callback for callback in trainer.callbacks if isinstance(callback, Rollout)]  # type: ignore[attr-defined]
        if not samplers:
            raise InputError("gopd_callbacks.Engine: the run has no gopd_callbacks.Rollout whose engine it could swap")
        for sampler in samplers:
            sampler.engine = self.engine
