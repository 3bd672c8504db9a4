"""Train or resume: ``accelerate launch -m bimodal_cl.train --config FILE`` or ``bimodal-train --config FILE``."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from bimodal_cl.cli.command_line import EXIT_USER_ERROR, Parser, path_text, run_command
from bimodal_cl.config.checks import SettingRefused, check_config
from bimodal_cl.config.launch_checks import check_launch, read_launcher_flags
from bimodal_cl.config.schema import Config
from bimodal_cl.config.source import add_flags, changed_keys, flags_given, load_config, save_config, suggest_flag
from bimodal_cl.errors import UserError

if TYPE_CHECKING:
    from bimodal_cl.trainer import Trainer

CONFIG_FILE = "config.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, build, run; return the exit status."""
    return run_command(_train, argv)


def build_parser() -> Parser:
    """Build the parser: a config file, and a flag for each of its keys."""
    parser = Parser(
        prog="bimodal-train",
        description="Train a dual encoder with a contrastive loss. Flags override the files, the files the defaults.",
        usage="%(prog)s --config FILE [--config FILE ...] [--resume latest] [--section.key VALUE ...]",
        formatter_class=argparse.HelpFormatter,
    )
    parser.add_version()
    parser.add_argument(
        "--config",
        required=True,
        action="append",
        type=path_text,
        metavar="FILE",
        help="the run as YAML; see configs/train. Further files are laid over it from left to right; a loss section "
        "replaces the whole one, see configs/loss",
    )
    parser.add_argument(
        "--resume",
        type=path_text,
        metavar="latest|best|PATH",
        help="continue from a checkpoint; latest starts anew where there is none yet",
    )
    parser.add_argument(
        "--profile-data",
        type=int,
        metavar="N",
        help="read N batches as the training would, print where the time goes, and stop",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    add_flags(parser)
    parser.suggest = lambda flag: suggest_flag(flag, parser._option_string_actions)
    return parser


def _train(argv: Sequence[str]) -> None:
    # config_checks says it of the key, in fewer words.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    with _warned_of_unless_refused():
        run = _set_up(argv)
    if run is None:
        return
    config, trainer = run
    if trainer.accelerator.is_main_process:
        try:
            trainer.folder.mkdir(parents=True, exist_ok=True)
            save_config(config, trainer.folder / CONFIG_FILE)
        except OSError as error:  # what the look at permissions could not tell, such as a read-only disk
            raise UserError(f"output: {trainer.folder} cannot be written: {error.strerror}") from None
    trainer.accelerator.wait_for_everyone()
    trainer.run()
    trainer.accelerator.wait_for_everyone()  # a process group that one rank leaves early aborts the others
    trainer.accelerator.end_training()


def _set_up(argv: Sequence[str]) -> tuple[Config, Trainer] | None:
    """Do everything that may refuse a run; None where something was to be printed and nothing to be trained."""
    with _said_once_per_machine():
        arguments = build_parser().parse_args(argv)
        config = load_config(arguments.config, flags_given(arguments))
        if arguments.profile_data is not None and arguments.resume is not None:
            raise UserError("--resume has no effect with --profile-data, which trains nothing: leave one of them out")
        check_launch(config, os.environ, read_launcher_flags())
        check_config(config)
    if arguments.print_config:
        print(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True), end="")
        return None
    folder = Path(config.output)
    if arguments.profile_data is not None:
        _profile_data(config, folder, arguments.profile_data)
        return None
    with _said_once_per_machine():
        checkpoint = _prepare_folder(folder, config, arguments.resume)

    from bimodal_cl.build import build_trainer  # torch is imported only now: --help and mistakes answer at once

    with _said_once_per_machine(SettingRefused):
        trainer = build_trainer(config, folder, checkpoint)
    if checkpoint is not None:
        trainer.resume(checkpoint)
    return config, trainer


@contextmanager
def _warned_of_unless_refused() -> Iterator[None]:
    """Hold warnings back until nothing can refuse the run any more: a refusal is one line, with none before it."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def _said_once_per_machine(mistake: type[UserError] = UserError) -> Iterator[None]:
    """Leave it to a machine's first process to say what all of them find wrong with flags, settings and folders."""
    try:
        yield
    except mistake:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(EXIT_USER_ERROR) from None
        raise


def _profile_data(config: Config, folder: Path, num_batches: int) -> None:
    """Print where the data's time goes; nothing is written."""
    from bimodal_cl.build import build_trainer
    from bimodal_cl.data.pipeline.profile import profile_stream

    if num_batches < 1:
        raise UserError(f"--profile-data must be at least 1, got {num_batches}")
    stream = build_trainer(config, folder).open_stream(0, 0)
    print("\n".join(profile_stream(stream, num_batches).lines()))


def _prepare_folder(folder: Path, config: Config, resume: str | None) -> Path | None:
    """Find the checkpoint to continue from, and refuse to write over another run or where nothing can be written."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"output: {folder} cannot be written: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"output: {folder} cannot be written: no permission to write in {existing}")
    if resume is None:
        if (folder / CONFIG_FILE).exists():
            raise UserError(
                f"output: {folder} already holds a run; continue it with --resume latest, or choose another"
            )
        return None
    from bimodal_cl.checkpoint import find_checkpoint

    checkpoint = find_checkpoint(folder / "checkpoints", resume)
    if checkpoint is not None and (folder / CONFIG_FILE).exists():
        changed = changed_keys(load_config(folder / CONFIG_FILE), config)
        if changed and os.environ.get("RANK", "0") == "0":
            print(f"resume: these keys differ from the run so far: {', '.join(changed)}", file=sys.stderr)
    return checkpoint


if __name__ == "__main__":
    sys.exit(main())
