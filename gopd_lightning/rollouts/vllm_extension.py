"""What a vLLM server's workers can do for gopd: `vllm serve ... --worker-extension-cls` with this module's class."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from gopd_lightning.errors import TrainingError
from gopd_lightning.rollouts.vllm_worker import limit_vocabulary, load_weights


class ServedStudent:
    """Methods that vLLM adds to its worker class and `VLLMServerEngine` calls by `/collective_rpc`."""

    model_runner: Any
    vllm_config: Any
    _gopd_folder = ""
    _gopd_vocabulary = 0

    def gopd_describe(self) -> dict[str, Any]:
        """What the engine must know of the server."""
        config = self.vllm_config.model_config
        return {"logprobs_mode": str(config.logprobs_mode), "max_model_len": int(config.max_model_len)}

    def gopd_load_weights(self, folder: str) -> dict[str, str]:
        """Replace all weights by those in a folder's safetensors files, unless it has them.

        Args:
            folder: A folder of its own for each state of the weights.

        Returns:
            Under `error`, why it failed; nothing else ends the caller's attempts.
        """
        from vllm.config import set_current_vllm_config

        if folder == self._gopd_folder:
            return {}
        self._gopd_folder = ""
        try:
            with set_current_vllm_config(self.vllm_config):
                load_weights(self, _weights(Path(folder)))
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}
        self._gopd_folder = folder
        return {}

    def gopd_limit_vocabulary(self, size: int) -> None:
        """Give ids from `size` on no probability from now on."""
        if size != self._gopd_vocabulary:
            limit_vocabulary(self, size)
            self._gopd_vocabulary = size


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of each weight in a folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise TrainingError(f"the server sees no weights in {folder}: give it the same folder as the trainer")
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (not a dict)
                yield name, weights.get_tensor(name)
