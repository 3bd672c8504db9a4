"""Everything or nothing: interruption, errors, full disks, finished folders, two runs at once."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

from data_prep.writing import tar_file
from tests.test_data_prep.raw_material import (
    file_bytes,
    photo,
    read_folder,
    start_prep,
    write_files,
    write_karpathy,
    write_photos,
)


def wait_for(path, process):
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


@pytest.fixture
def source(tmp_path):
    return write_karpathy(tmp_path / "raw", ["train"] * 6 + ["val"] * 2)


def arguments(source, to, *more):
    flags = ("--json", source / "data.json", "--images", source / "images", "--shard-size", 2)
    return ("write", "karpathy", *flags, "--to", to, *more)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle(prep, source, tmp_path, kind):
    """A pipe in the place of an image holds the run exactly there."""
    assert prep(*arguments(source, tmp_path / "whole")).status == 0
    held = source / "images" / "5.jpg"
    held.unlink()
    os.mkfifo(held)
    process = start_prep(*arguments(source, tmp_path / "to"))
    wait_for(tmp_path / "to" / ".partial" / "content" / "train" / "00001.tar", process)
    process.send_signal(kind)
    _, err = process.communicate(timeout=30)
    assert not list((tmp_path / "to").rglob("manifest.json"))
    if kind == signal.SIGINT:
        assert process.returncode == 130 and err.splitlines()[-1] == "interrupted"
        assert not (tmp_path / "to").exists()
    held.unlink()
    held.write_bytes(photo(5))
    assert prep(*arguments(source, tmp_path / "to")).status == 0
    assert file_bytes(tmp_path / "to") == file_bytes(tmp_path / "whole")


def test_killed_between_two_manifests(prep, source, tmp_path):
    """One split is finished, the other not: the same command completes it, another one is refused."""
    assert prep(*arguments(source, tmp_path / "whole")).status == 0
    die = (
        "import os, pathlib; from data_prep.cli import main; move = pathlib.Path.replace; seen = []\n"
        "def replace(self, target):\n"
        "    if '.partial' in str(self) and self.name == 'manifest.json': seen.append(1)\n"
        "    os.kill(os.getpid(), 9) if len(seen) > 1 else move(self, target)\n"
        "def later(self, target):\n"
        "    return move(self, target) if '.tmp' in self.name else replace(self, target)\n"
        "pathlib.Path.replace = later; sys.exit(main(sys.argv[1:]))"
    )
    process = start_prep(*arguments(source, tmp_path / "to"), code=die)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    (finished,) = (tmp_path / "to").glob("*/manifest.json")
    read_folder(finished.parent)  # a manifest stands only where all its shards do
    error = prep(*arguments(source, tmp_path / "to", "--max-side", 8)).error
    assert "is finished" in error and "--overwrite" in error
    assert prep(*arguments(source, tmp_path / "to")).status == 0
    assert file_bytes(tmp_path / "to") == file_bytes(tmp_path / "whole")


def test_full_disk(prep, source, tmp_path, monkeypatch):
    write = tar_file._HashedFile.write
    room = [30_000]

    def write_until_full(self, data):
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(tar_file._HashedFile, "write", write_until_full)
        done = prep(*arguments(source, tmp_path / "to"))
    assert done.status == 1 and "no space left on the disk" in done.err and str(tmp_path / "to") in done.err
    assert "Traceback" not in done.err and not (tmp_path / "to").exists()
    assert prep(*arguments(source, tmp_path / "to")).status == 0
    assert len(read_folder(tmp_path / "to" / "train")) == 6


def test_an_error_of_our_own_leaves_nothing(source, tmp_path, monkeypatch, prep):
    def fail(self, key, members):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(tar_file.TarWriter, "write_sample", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        prep(*arguments(source, tmp_path / "to"))
    assert not (tmp_path / "to").exists()


def test_strict_leaves_nothing_and_otherwise_it_is_counted(prep, source, tmp_path):
    write_files(source / "images", {"5.jpg": photo(5)[:100]})
    keep = write_files(tmp_path / "to", {"notes.txt": "mine"})
    error = prep(*arguments(source, tmp_path / "to", "--strict")).error
    assert error.startswith(f"{source / 'images' / '5.jpg'}: Truncated") and "--strict" in error
    assert file_bytes(keep) == {"notes.txt": b"mine"}
    done = prep(*arguments(source, tmp_path / "to"))
    assert done.status == 0 and "5.jpg: Truncated" in done.err and "1 items skipped" in done.out
    assert len(read_folder(tmp_path / "to" / "train")) == 5 and (keep / "notes.txt").exists()


def test_a_finished_folder_is_refused_and_overwritten_when_told(prep, source, tmp_path):
    assert prep(*arguments(source, tmp_path / "to")).status == 0
    before = file_bytes(tmp_path / "to")
    for same in (arguments(source, tmp_path / "to"), arguments(source, tmp_path / "to", "--split", "val")):
        error = prep(*same).error
        assert "is finished" in error and "--overwrite" in error
    assert file_bytes(tmp_path / "to") == before
    write_files(tmp_path / "to" / "train", {"README": "stays", "mine.tar": "stays too"})
    assert prep(*arguments(source, tmp_path / "to", "--overwrite", "--shard-size", 5)).status == 0
    after = file_bytes(tmp_path / "to")
    assert "train/00002.tar" in before and "train/00002.tar" not in after  # no shard of the old manifest is left
    assert after["train/README"] == b"stays" and after["train/mine.tar"] == b"stays too"


def test_a_failed_overwrite_keeps_what_was_there(prep, source, tmp_path):
    assert prep(*arguments(source, tmp_path / "to")).status == 0
    before = file_bytes(tmp_path / "to")
    write_files(source / "images", {"5.jpg": b"broken"})
    assert prep(*arguments(source, tmp_path / "to", "--overwrite", "--strict")).status == 2
    assert file_bytes(tmp_path / "to") == before


def test_tars_of_somebody_else_are_not_touched(prep, tmp_path):
    raw = write_photos(tmp_path / "raw", [0])
    to = write_files(tmp_path / "to", {"00000.tar": "downloaded for a week", "backup.tar": "only copy"})
    error = prep("write", "folder", "--images", raw, "--to", to).error
    assert "holds 2 tars without a manifest.json" in error and "00000.tar" in error
    assert file_bytes(to) == {"00000.tar": b"downloaded for a week", "backup.tar": b"only copy"}
    assert prep("write", "folder", "--images", raw, "--to", to, "--overwrite").status == 0
    assert (to / "backup.tar").read_bytes() == b"only copy"


def test_two_runs_at_once(prep, source, tmp_path):
    held = source / "images" / "5.jpg"
    held.unlink()
    os.mkfifo(held)
    process = start_prep(*arguments(source, tmp_path / "to"))
    try:
        wait_for(tmp_path / "to" / ".partial" / "content" / "train" / "00001.tar", process)
        assert "another command is writing to" in prep(*arguments(source, tmp_path / "to")).error
        held.write_bytes(photo(5))
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
    finally:
        process.kill()
    assert len(read_folder(tmp_path / "to" / "train")) == 6


def test_unwritable_targets(prep, write, tmp_path, monkeypatch):
    raw = write_photos(tmp_path / "raw", [0])
    write_files(tmp_path, {"file": "in the way"})
    for to in (tmp_path / "file", tmp_path / "file" / "below"):
        error = prep("write", "folder", "--images", raw, "--to", to).error
        assert "cannot write to" in error and str(to) in error
    (tmp_path / "shut").mkdir(mode=0o500)
    if os.geteuid() == 0:  # whom no mode stops: say what a read-only disk would
        mkdir = Path.mkdir

        def refuse(self, *args, **kwargs):
            if self.parent == tmp_path / "shut":
                raise OSError(errno.EROFS, "Read-only file system", str(self))
            mkdir(self, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", refuse)
    error = write("folder", "--images", raw, to="shut").error
    assert "cannot write to" in error and "shut" in error
    assert not list((tmp_path / "shut").iterdir())


def test_nothing_to_write(write, tmp_path):
    raw = write_files(tmp_path / "raw", {"a.jpg": b"broken", "a.txt": "x"})
    error = write("folder", "--images", raw).error
    assert "no item that can be written (1 skipped)" in error
    assert not (tmp_path / "to").exists()


def test_same_input_same_bytes(prep, source, tmp_path):
    for to in ("a", "b"):
        assert prep(*arguments(source, tmp_path / to)).status == 0
        for image in (source / "images").iterdir():
            os.utime(image, (1, 1))  # times are not content
    assert file_bytes(tmp_path / "a") == file_bytes(tmp_path / "b")
    assert not [name for name in file_bytes(tmp_path / "a") if ".partial" in name or ".tmp" in name]
