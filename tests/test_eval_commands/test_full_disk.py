"""A full disk gives one line that names the file, and leaves no partial result."""

import errno

from bimodal_cl.cli.exit_status import with_exit_status
from bimodal_cl.files.atomic import write_atomically


def test_the_file_is_named_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    path = tmp_path / "result.json"
    assert with_exit_status(lambda argv: write_atomically(path, "{}"))([]) == 1
    assert capsys.readouterr().err == f"error: no space left on the disk: {path}\n"
    assert not any(tmp_path.iterdir())
