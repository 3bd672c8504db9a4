"""Train or resume: ``bimodal-train --config FILE``, ``accelerate launch -m bimodal_cl.train``, or :class:`Trainer`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from bimodal_cl.cli.arguments import path_text, positive_integer
from bimodal_cl.cli.exit_status import EXIT_USER_ERROR, with_exit_status
from bimodal_cl.cli.parser import Parser
from bimodal_cl.cli.progress import note
from bimodal_cl.cli.resume_command import compose_resume_command, read_parent_command
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
    from bimodal_cl import trainer

_WORKERS_WARNING = "This DataLoader will create"  # the check of data.num_workers says it in fewer words


@with_exit_status
def main(argv: Sequence[str]) -> None:
    """Parse the arguments, build the run, train; the exit status is 0, 2 for a mistake of the user, else 1."""
    warnings.filterwarnings("ignore", message=_WORKERS_WARNING)
    # OpenMP reads it when torch is imported. A thread that waits for another one would else spin, on a core that the
    # other thread, or a data worker, needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with _warnings_after_refusals():
        loop = set_up(argv)
    if loop is None:
        return
    loop.run()
    _say_how_to_continue(loop, compose_resume_command(argv, read_parent_command()))
    loop.accelerator.wait_for_everyone()  # a process group that one rank leaves early aborts the others
    loop.accelerator.end_training()


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
    parser.add_argument(
        "--profile-steps",
        type=positive_integer,
        metavar="N",
        help="train N steps, print where their time goes, write a trace into the run's folder, and stop",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    add_flags(parser)
    parser.suggest = lambda flag: suggest_flag(flag, parser._option_string_actions)
    return parser


class Trainer:
    """Trains the run of a config from Python, with the checks, the lines and the files of the command.

    One process may train one run after another: each has a device, a precision and a seed of its own. Several
    processes train one run where ``accelerate launch``, ``torchrun`` or a notebook launcher starts them.

    Args:
        config: the run, as :func:`~bimodal_cl.config.yaml_files.load_config` reads it from a file or
            :func:`~bimodal_cl.config.yaml_files.make_config` makes it of values.
        resume: continue from a checkpoint: ``latest`` (a new run where there is none yet), ``best`` or a path.

    Attributes:
        stopped_by: after :meth:`run`: the signal that has ended the training early, such as ``"SIGTERM"``; else None.

    Raises:
        UserError: ``config`` is none.
    """

    def __init__(self, config: Config, resume: str | Path | None = None) -> None:
        if not isinstance(config, Config):
            raise UserError(
                f"Trainer takes a Config, got {type(config).__name__}: load_config reads one from a file, and "
                "make_config makes one of values"
            )
        self.config, self.resume = config, None if resume is None else str(resume)
        self.stopped_by: str | None = None

    def run(self) -> Path:
        """Train to the end, or until a signal asks to stop, and return the run's folder.

        In the main thread, Ctrl-C, SIGTERM and SIGUSR1 let the run finish its step, save and return; ``stopped_by``
        names the signal, and ``resume="latest"`` continues. In another thread, signals are the program's own matter.

        Raises:
            UserError: a mistake in settings, data or the run's folder; the message is the command's line.
            RunStopped: a run that had to stop without a mistake of the user, likewise.
        """
        run = RunFolder(Path(self.config.output))
        with warnings.catch_warnings(), _accelerate_as_new():
            warnings.filterwarnings("ignore", message=_WORKERS_WARNING)
            with _warnings_after_refusals():
                _check_settings(self.config)
                loop = _prepare(self.config, run, self.resume)
            loop.run()
            self.stopped_by = loop.stopped_by
            _say_how_to_continue(loop, "Trainer(config, resume='latest').run()")
            loop.accelerator.wait_for_everyone()
        return run.path


def set_up(argv: Sequence[str]) -> trainer.Trainer | None:
    """Run every check that may refuse a run, build its trainer, and write its config.

    Returns:
        The trainer, resumed where that was asked for; None where the command was to print something and not to train.

    Raises:
        UserError: a mistake in flags, files, settings, data or the run's folder.
    """
    with _refused_once_per_machine():
        arguments = build_parser().parse_args(argv)
        config = load_config(arguments.config, flags_given(arguments))
        _check_profile(arguments)
        _check_settings(config)
    if arguments.print_config:
        print_yaml(config.to_dict())
        return None
    run = RunFolder(Path(config.output))
    if arguments.profile_data is not None:
        _profile_data(config, run, arguments.profile_data)
        return None
    if arguments.profile_steps is not None:
        _profile_steps(config, run, arguments.profile_steps)
        return None
    return _prepare(config, run, arguments.resume, refused=_refused_once_per_machine)


def _say_how_to_continue(loop: trainer.Trainer, command: str) -> None:
    if loop.stopped_by is not None and loop.accelerator.is_main_process:
        note(f"{loop.stopped_by}: stopped after step {loop.steps_done}, which is saved; continue with: {command}")


def _check_settings(config: Config) -> None:
    check_launch(config, os.environ, read_launcher_flags())
    check_config(config)


def _prepare(
    config: Config,
    run: RunFolder,
    resume: str | None,
    refused: Callable[..., AbstractContextManager[None]] = nullcontext,
) -> trainer.Trainer:
    """Build the trainer of a checked config, load its checkpoint, and write its config.

    Args:
        config: the run.
        run: its folder.
        resume: the name of the checkpoint to continue from, if any.
        refused: what surrounds the checks that all processes of a machine make alike, and fail alike.
    """
    with refused():
        _refuse_unwritable(run)
        checkpoint = _find_checkpoint(run, config, resume)

    from bimodal_cl.build import build_trainer  # torch is imported only now, so that --help and mistakes answer at once

    with refused(SettingRefused):
        loop = build_trainer(config, run, checkpoint)
    if checkpoint is not None:
        loop.resume(checkpoint)
    loop.accelerator.wait_for_everyone()  # until then, none takes the config of this run for one of another
    if loop.accelerator.is_main_process:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            save_config(config, run.config)
        except OSError as error:  # what the permissions do not show, such as a read-only disk
            raise UserError(f"output: {run.path} cannot be written: {error.strerror}") from None
    loop.accelerator.wait_for_everyone()
    return loop


@contextmanager
def _accelerate_as_new() -> Iterator[None]:
    """Let Accelerate find device, processes and precision anew, and give the caller's own objects theirs back."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    states = [each._shared_state for each in (PartialState, AcceleratorState, GradientState)]
    before = [dict(state) for state in states]
    settings = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    for state in states:
        state.clear()
    try:
        yield
    finally:
        for state, values in zip(states, before, strict=True):
            state.clear()
            state.update(values)
        for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
            del os.environ[name]
        os.environ.update(settings)


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


def _profile_steps(config: Config, run: RunFolder, num_steps: int) -> None:
    """Print where the time of a step goes; only a trace of each process is written."""
    with _refused_once_per_machine():
        _refuse_unwritable(run)

    from bimodal_cl.build import build_trainer
    from bimodal_cl.training.speed.step_profile import profile_steps

    with _refused_once_per_machine(SettingRefused):
        loop = build_trainer(config, run)
    with _refused_once_per_machine():
        profile = profile_steps(loop, num_steps, run.path / "profile")
    if profile is not None:
        print("\n".join(profile.lines()))
    loop.accelerator.wait_for_everyone()
    loop.accelerator.end_training()


def _check_profile(arguments: argparse.Namespace) -> None:
    """Refuse flags that a profile leaves without effect."""
    given = {"--profile-data": arguments.profile_data, "--profile-steps": arguments.profile_steps}
    asked = [flag for flag, value in given.items() if value is not None]
    if len(asked) == 2:
        raise UserError("--profile-data and --profile-steps are two measurements: leave one of them out")
    if asked and arguments.resume is not None:
        what = "trains nothing" if asked == ["--profile-data"] else "starts anew and keeps nothing"
        raise UserError(f"--resume has no effect with {asked[0]}, which {what}: leave one of them out")


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
