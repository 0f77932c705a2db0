"""A larger model with random weights and the nano tokenizer: `python -m study.larger_model assets/nano/base OUT`."""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Qwen3ForCausalLM

from gopd_lightning.export import save_hf

SHAPE = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 4, "layer_types": ["full_attention"] * 4}


def make(small: str, out: Path) -> None:
    """Write the larger model.

    Args:
        small: The nano base: its tokenizer and every other setting are kept.
        out: Folder to write.
    """
    config = AutoConfig.from_pretrained(small, **SHAPE, **HEADS)
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig.from_pretrained(small)
    save_hf(model, model.state_dict(), AutoTokenizer.from_pretrained(small), out)


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
