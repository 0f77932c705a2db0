"""The `gopd` command: LightningCLI with this project's defaults, checks and one-line errors.

Verbs are subcommands (fit, validate, test, predict, export, merge, compare, plan), methods are YAML files. The run
folder is `trainer.default_root_dir`; everything that a run leaves is in it.
"""

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import auto_cli, set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from transformers.utils.logging import disable_progress_bar

from gopd_lightning.errors import InputError, TrainingError
from gopd_lightning.metrics_file import MetricsFile
from gopd_lightning.parse_errors import explain, overlooked
from gopd_lightning.strategies import restore_replaced  # makes `fsdp2` known to the Trainer, too

TRAINER_DEFAULTS = {
    "num_sanity_val_steps": 0,  # it would sample before the engine has weights
    "log_every_n_steps": 1,
    "use_distributed_sampler": False,  # the loaders know their rank
    "inference_mode": False,  # an FSDP2 module first run in inference mode cannot be trained
    "max_epochs": -1,
    "enable_model_summary": False,
    "default_root_dir": "runs/unnamed",
}

HELP = "Generalized on-policy distillation of language models. A method is a YAML file: see configs/."
EPILOG = (
    "gopd export RUN OUT writes the student of a run's checkpoint as a Hugging Face folder. "
    "gopd merge MODEL MODEL --out OUT averages models, or extrapolates them from their base. "
    "gopd compare RUN_A RUN_B ... compares evaluations of gopd test problem by problem. "
    "gopd plan --config ... says what a run needs of each rank's memory, before anything loads."
)
EXPORT_HELP = "Write the student of a run's checkpoint as a Hugging Face folder."
MERGE_HELP = "Average models, or extrapolate them away from their base (ExPO), without training."
COMPARE_HELP = "Compare evaluations problem by problem: a table, comparison.md and comparison.png."


class ParseError(Exception):
    """The command line or its YAML cannot be read; the text is jsonargparse's."""


class Parser(LightningArgumentParser):
    """Reports what is wrong in one line, without the usage text of two hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hand a parse error to `main`, which knows the command line.

        Args:
            message: jsonargparse's text.
            ex: The exception behind it.

        Raises:
            ParseError: From the command line's own parser. Those of nested classes raise what jsonargparse
                expects of them: a union may hold a class that does fit.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        raise ParseError(message) from ex


class SaveFitConfig(SaveConfigCallback):
    """Writes config.yaml into the run folder when fitting; other verbs leave the run's record alone."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save when the stage is fit."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class GOPDCLI(LightningCLI):
    """LightningCLI whose resumed runs obey the command line and whose run folders are never mixed."""

    def _parse_ckpt_path(self) -> None:
        """Leave the command line alone: Lightning would lay the checkpoint's hyper-parameters over it."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; a fit without loggers of its own logs into the run folder.

        Raises:
            InputError: Trainer settings that this machine or Lightning refuses.
        """
        config = self.config_init[self.config_init["subcommand"]]
        if config["trainer"]["logger"] is None:
            kwargs["logger"] = self._run_loggers(config["trainer"]["default_root_dir"])
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError) as error:
            raise InputError(f"trainer: {' '.join(str(error).split())[:300]}") from error

    def _run_loggers(self, folder: str) -> Any:
        """metrics.csv and TensorBoard events for fit, nothing for other verbs."""
        if self.config_init["subcommand"] != "fit":
            return False
        return [MetricsFile(folder), TensorBoardLogger(folder, name="", version="")]

    def before_fit(self) -> None:
        """Refuse a run that cannot start.

        Raises:
            InputError: No step to run, or a run folder that holds another run.
        """
        config = self.config["fit"]
        trainer = config["trainer"]
        if trainer["max_steps"] == 0 or (trainer["max_steps"] == -1 and trainer["max_epochs"] in (None, -1)):
            raise InputError(f"trainer.max_steps is {trainer['max_steps']}: say how many steps to train")
        folder = Path(trainer["default_root_dir"])
        restore_replaced(folder / "checkpoints")
        if config["ckpt_path"] is None and (folder / "config.yaml").exists():
            raise InputError(
                f"trainer.default_root_dir: {folder} holds a run already: go on with it by --ckpt_path last, "
                "or name another folder"
            )


class PlanCLI(GOPDCLI):
    """Reads a config as fit does, and builds the module and the data module alone."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what else a plan may be told.

        Args:
            parser: The command's parser.
        """
        parser.add_argument("--gpu", type=str | None, help="plan for this GPU (or cpu); null is the machine at hand")
        parser.add_argument("--prompt_tokens", type=int | None, help="length of prompts; null is the longest allowed")
        parser.add_argument("--response_tokens", type=int | None, help="of responses; null is the longest allowed")

    def instantiate_classes(self) -> None:
        """Leave the Trainer and what belongs to it alone: they may be for another machine."""
        own = self.config.clone()
        for name in ("callbacks", "logger", "plugins", "profiler"):
            own["trainer"][name] = None
        own["trainer"]["strategy"] = "auto"
        self.config_init = self.parser.instantiate_classes(own)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments; None takes those of the process.
    """
    _quieten()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a class_path may name the user's own module
    arguments = sys.argv[1:] if args is None else list(args)
    try:
        if line := overlooked(arguments):
            raise InputError(line)
        _dispatch(arguments, args is None)
    except ParseError as error:
        _give_up(explain(_texts(error), arguments), 2)
    except TrainingError as error:
        _give_up(str(error), 1)
    except (KeyboardInterrupt, SystemExit) as leave:  # Lightning turns the first into the second, silently
        if isinstance(leave, SystemExit) and not isinstance(leave.__context__, KeyboardInterrupt):
            raise
        _give_up("interrupted", 130)
    except Exception as error:
        if wrong := _input_error(error):
            _give_up(str(wrong), 2)
        if _lost_peer(error):
            _give_up(f"another rank has ended, and its log says why: {' '.join(str(error).split())[:200]}", 1)
        raise


def _dispatch(arguments: list[str], of_process: bool) -> None:
    """Run the verb: Lightning's own, export, merge, compare or plan."""
    if arguments[:1] == ["export"]:
        from gopd_lightning.export import export_run

        auto_cli(export_run, args=arguments[1:], prog="gopd export", parser_class=Parser, description=EXPORT_HELP)
    elif arguments[:1] == ["merge"]:
        from gopd_lightning.merging import merge

        parser = Parser(prog="gopd merge", description=MERGE_HELP)
        parser.add_argument("models", nargs="*", metavar="MODEL", help="folders, runs, hub ids or adapters")
        parser.add_function_arguments(merge, skip={"models"})
        merge(**parser.parse_args(arguments[1:]).as_dict())
    elif arguments[:1] == ["compare"]:
        from gopd_lightning.comparison import compare_runs

        parser = Parser(prog="gopd compare", description=COMPARE_HELP)
        parser.add_argument(
            "runs", nargs="*", metavar="RUN", help="folders that gopd test wrote; the first is the base"
        )
        parser.add_function_arguments(compare_runs, skip={"runs"})
        compare_runs(**parser.parse_args(arguments[1:]).as_dict())
    elif arguments[:1] == ["plan"]:
        from gopd_lightning.planning import Plan, plan_text

        cli = run_cli(arguments[1:], run=False, kind=PlanCLI)
        options = {name: cli.config[name] for name in ("gpu", "prompt_tokens", "response_tokens")}
        made = cli.config_init
        print(plan_text(Plan(cli.config["trainer"], made["model"], made["data"], **options)))
    else:
        run_cli(None if of_process else arguments)


def _input_error(error: BaseException | None) -> InputError | None:
    """The InputError behind an exception: jsonargparse wraps what a constructor raises in errors of its own."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because the process on its other side is gone."""
    return isinstance(error, RuntimeError) and bool(re.search(r"Connection (closed|reset) by peer", str(error)))


def _texts(error: BaseException | None) -> list[str]:
    """What an exception and those behind it say, the innermost first."""
    texts: list[str] = []
    while error is not None:
        texts.insert(0, str(error))
        error = error.__cause__ or error.__context__
    return texts


def _give_up(line: str, code: int) -> NoReturn:
    sys.stderr.write(f"gopd: {line}\n")
    sys.exit(code)


def run_cli(args: Sequence[str] | None = None, run: bool = True, kind: type[GOPDCLI] = GOPDCLI) -> GOPDCLI:
    """Parse and, unless told otherwise, run one of Lightning's verbs.

    Args:
        args: Arguments; None takes those of the process.
        run: False only builds the objects, from arguments without a verb.
        kind: The class of the command line.

    Returns:
        The command line with its trainer, model and data module.
    """
    set_parsing_settings(add_print_completion_argument=True)
    return kind(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SaveFitConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults=TRAINER_DEFAULTS,
        seed_everything_default=0,
        auto_configure_optimizers=False,
        parser_class=Parser,
        parser_kwargs={"description": HELP, "epilog": EPILOG},
        args=args,  # type: ignore[arg-type]
        run=run,
    )


def _quieten() -> None:
    """Drop what Lightning and its libraries say on every start and no user can act on."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    disable_progress_bar()
    for pattern in (
        ".*You are using `LightningModule.automatic_optimization.*",
        ".*does not have many workers.*",
        ".*LightningCLI's args parameter is intended.*",
        ".*manual optimization.*",
        ".*`isinstance\\(treespec, LeafSpec\\)`.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*there is no last checkpoint available.*",  # `--ckpt_path last` is right for a first run too
        ".*Total length of `EvalLoader` across ranks is zero.*",
        ".*It is recommended to use `self.log.*sync_dist.*",  # what is logged is reduced already
        ".*dirpath has changed from.*",
        ".*srun.*",
    ):
        warnings.filterwarnings("ignore", pattern)
