"""Prompts: sources, chat templates, the stateful loader and the DataModule."""

from gopd_lightning.data.chat import PromptEncoder
from gopd_lightning.data.datamodule import PromptData, build_prompts
from gopd_lightning.data.loader import EvalLoader, PromptLoader
from gopd_lightning.data.rows import Messages, RawRow, parse_row
from gopd_lightning.data.sources import SourceSpec, read_rows

__all__ = [
    "EvalLoader",
    "Messages",
    "PromptData",
    "PromptEncoder",
    "PromptLoader",
    "RawRow",
    "SourceSpec",
    "build_prompts",
    "parse_row",
    "read_rows",
]
