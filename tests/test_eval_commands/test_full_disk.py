"""A full disk gives one line that names the file, and leaves no partial result."""

import errno
from pathlib import Path

from bimodal_cl.cli.command_line import run_command
from eval.run_folder import write_whole


def test_the_file_is_named_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    def full(self: Path, mode: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "chmod", full)
    path = tmp_path / "result.json"
    assert run_command(lambda argv: write_whole(path, "{}"), []) == 1
    assert capsys.readouterr().err == f"error: no space left on the disk: {path}\n"
    assert not any(tmp_path.iterdir())
