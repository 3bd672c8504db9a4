"""Train or resume: ``accelerate launch -m bimodal_cl.train --config FILE`` or ``bimodal-train --config FILE``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import path_text, positive_integer
from bimodal_cl.cli.exit_status import EXIT_USER_ERROR, with_exit_status
from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.yaml_arguments import print_yaml
from bimodal_cl.config.checks import check_config
from bimodal_cl.config.checks.launch import check_launch, read_launcher_flags
from bimodal_cl.config.flags import add_flags, flags_given
from bimodal_cl.config.messages import suggest_flag
from bimodal_cl.config.schema import Config
from bimodal_cl.config.yaml_files import changed_keys, load_config, save_config
from bimodal_cl.errors import SettingRefused, UserError
from bimodal_cl.run_folder import RunFolder

if TYPE_CHECKING:
    from bimodal_cl.trainer import Trainer


@with_exit_status
def main(argv: Sequence[str]) -> None:
    """Parse the arguments, build the run, train; the exit status is 0, 2 for a mistake of the user, else 1."""
    # The check of data.num_workers warns about it in fewer words.
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    with _warnings_after_refusals():
        trainer = set_up(argv)
    if trainer is None:
        return
    trainer.run()
    trainer.accelerator.wait_for_everyone()  # a process group that one rank leaves early aborts the others
    trainer.accelerator.end_training()


def build_parser() -> Parser:
    """Build the parser: the config files, and a flag for each key of the schema."""
    parser = Parser(
        prog="bimodal-train",
        description="Train a dual encoder with a contrastive loss. Flags override files, and files override defaults.",
        usage="%(prog)s --config FILE [--config FILE ...] [--resume latest] [--section.key VALUE ...]",
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
        help="continue from a checkpoint; latest starts a new run where there is no checkpoint yet",
    )
    parser.add_argument(
        "--profile-data",
        type=positive_integer,
        metavar="N",
        help="read N batches as the training would, print where the time goes, and stop",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    add_flags(parser)
    parser.suggest = lambda flag: suggest_flag(flag, parser._option_string_actions)
    return parser


def set_up(argv: Sequence[str]) -> Trainer | None:
    """Run every check that may refuse a run, build its trainer, and write its config.

    Returns:
        The trainer, resumed where that was asked for; None where the command was to print something and not to train.

    Raises:
        UserError: a mistake in flags, files, settings, data or the run's folder.
    """
    with _refused_once_per_machine():
        arguments = build_parser().parse_args(argv)
        config = load_config(arguments.config, flags_given(arguments))
        if arguments.profile_data is not None and arguments.resume is not None:
            raise UserError("--resume has no effect with --profile-data, which trains nothing: leave one of them out")
        check_launch(config, os.environ, read_launcher_flags())
        check_config(config)
    if arguments.print_config:
        print_yaml(config.to_dict())
        return None
    run = RunFolder(Path(config.output))
    if arguments.profile_data is not None:
        _profile_data(config, run, arguments.profile_data)
        return None
    with _refused_once_per_machine():
        _refuse_unwritable(run)
        checkpoint = _find_checkpoint(run, config, arguments.resume)

    from bimodal_cl.build import build_trainer  # torch is imported only now, so that --help and mistakes answer at once

    with _refused_once_per_machine(SettingRefused):
        trainer = build_trainer(config, run, checkpoint)
    if checkpoint is not None:
        trainer.resume(checkpoint)
    if trainer.accelerator.is_main_process:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            save_config(config, run.config)
        except OSError as error:  # what the permissions do not show, such as a read-only disk
            raise UserError(f"output: {run.path} cannot be written: {error.strerror}") from None
    trainer.accelerator.wait_for_everyone()
    return trainer


@contextmanager
def _warnings_after_refusals() -> Iterator[None]:
    """Hold warnings back until every check has passed, so that a refusal is a single line."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextmanager
def _refused_once_per_machine(mistake: type[UserError] = UserError) -> Iterator[None]:
    """Let only the first process of a machine report a mistake that all of them find; the others exit in silence."""
    try:
        yield
    except mistake:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise SystemExit(EXIT_USER_ERROR) from None
        raise


def _profile_data(config: Config, run: RunFolder, num_batches: int) -> None:
    """Print how long each stage of the data pipeline takes; nothing is written."""
    from bimodal_cl.build import build_trainer
    from bimodal_cl.data.pipeline.profile import profile_stream

    stream = build_trainer(config, run).open_stream(0, 0)
    print("\n".join(profile_stream(stream, num_batches).lines()))


def _refuse_unwritable(run: RunFolder) -> None:
    existing = run.path
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"output: {run.path} cannot be written: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"output: {run.path} cannot be written: no permission to write in {existing}")


def _find_checkpoint(run: RunFolder, config: Config, resume: str | None) -> Path | None:
    """Return the checkpoint to continue from, None for a new run; refuse a new run in the folder of another one."""
    if resume is None:
        if run.config.exists():
            raise UserError(
                f"output: {run.path} already holds a run; continue it with --resume latest, or choose another"
            )
        return None
    checkpoint = run.find_checkpoint(resume)
    if checkpoint is not None and run.config.exists():
        changed = changed_keys(load_config(run.config), config)
        if changed and os.environ.get("RANK", "0") == "0":
            print(f"resume: these keys differ from the run so far: {', '.join(changed)}", file=sys.stderr)
    return checkpoint


if __name__ == "__main__":
    sys.exit(main())
