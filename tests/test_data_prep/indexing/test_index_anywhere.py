"""An index of shards wherever they are: patterns, servers, commands; taken up again; damage kept or refused."""

import os
import shlex
import signal
import time

import pytest

from bimodal_cl.data import Manifest, Shard
from bimodal_cl.data.shards.index import index_shard
from bimodal_cl.data.shards.reader import RowReader
from bimodal_cl.data.shards.row_table import load_row_table
from bimodal_cl.data.storage.storage import Storage
from bimodal_cl.errors import UserError
from bimodal_cl.files.locks import locked
from tests.test_data.shard_server import serve
from tests.test_data_prep.raw_material import photo, start_prep, write_tar


@pytest.fixture
def tars(tmp_path):
    """Shards 1, 2 and 10 of two samples each."""
    for shard in (1, 2, 10):
        members = [
            (f"{shard}-{n}.{ext}", photo(shard + n) if ext == "jpg" else f"caption {shard} {n}".encode())
            for n in range(2)
            for ext in ("jpg", "txt")
        ]
        write_tar(tmp_path / "tars" / f"{shard}.tar", members)
    return tmp_path / "tars"


def names(folder):
    return [shard.name for shard in Manifest.load(folder).shards]


def captions(folder, storage=None):
    reader = RowReader(Manifest.load(folder), storage)
    try:
        return [reader.read(n).captions[0] for n in range(reader.mixture.num_images)]
    finally:
        reader.close()


def test_patterns_below_one_folder_need_no_other(prep, tars):
    assert prep("index", f"{tars}/{{2..10..8}}.tar").status == 0
    assert names(tars) == ["2.tar", "10.tar"]
    assert sorted(path.name for path in (tars / "rows").iterdir()) == ["10.tar.rows", "2.tar.rows"]
    done = prep("index", f"{tars}/*.tar", "--overwrite")
    assert done.status == 0 and "2 of the shards were read before and have not changed" in done.out
    assert names(tars) == ["1.tar", "2.tar", "10.tar"]
    assert prep("index", tars / "1.tar", "--overwrite").status == 0
    assert [path.name for path in (tars / "rows").iterdir()] == ["1.tar.rows"]  # no table of what is not listed
    assert captions(tars) == ["caption 1 0", "caption 1 1"]


def test_shards_of_several_folders(prep, tars, tmp_path):
    other = tmp_path / "to" / "deep"
    other.mkdir(parents=True)
    (tars / "2.tar").rename(other / "2.tar")
    assert "--to DIR is needed for manifest.json: the shards are in several folders" in prep("index", tars, other).error
    done = prep("index", tars, f"{other}/*.tar", "--to", tmp_path / "to")
    assert done.status == 0 and "6 images, 6 captions (whole) in 3 shards" in done.out
    assert names(tmp_path / "to") == [str(tars / "1.tar"), str(tars / "10.tar"), "deep/2.tar"]
    assert captions(tmp_path / "to") == [f"caption {shard} {n}" for shard in (1, 10, 2) for n in range(2)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreliable_server(prep, tars, tmp_path, workers):
    assert prep("index", tars, "--to", tmp_path / "local").status == 0
    cache = ("--cache-dir", tmp_path / "cache")
    with serve(tars) as server:
        server.fault = lambda number: "" if number % 3 else "truncate"
        url = f"{server.url}/{{1,2,10}}.tar"
        assert "--to DIR is needed for manifest.json: the shards are not on" in prep("index", url, *cache).error
        done = prep("index", url, "--to", tmp_path / "to", "--workers", workers, *cache)
        assert done.status == 0, done.err
        assert names(tmp_path / "to") == [f"{server.url}/{n}.tar" for n in (1, 2, 10)]
        local, remote = Manifest.load(tmp_path / "local"), Manifest.load(tmp_path / "to")
        assert [s.bytes for s in remote.shards] == [s.bytes for s in local.shards]
        for shard in range(3):
            ours, theirs = load_row_table(remote, shard), load_row_table(local, shard)
            assert ours.image_offset.tolist() == theirs.image_offset.tolist()
        assert captions(tmp_path / "to", Storage(tmp_path / "cache")) == captions(tmp_path / "local")

        server.fault, server.asked = lambda number: "", []
        os.utime(tars / "2.tar", ns=(0, 10**18))  # changed: another ETag
        done = prep("index", url, "--to", tmp_path / "to", "--cache-dir", tmp_path / "empty", "--workers", 1)
        assert done.status == 0 and "2 of the shards were read before and have not changed" in done.out
        assert "; unchanged" in done.out
        whole = {path for path, asked in server.asked if asked is None or asked != "bytes=0-0"}
        assert whole == {"/1.tar", "/2.tar"}  # the first one to tell the layout
        assert "/3.tar: the server answers 404" in prep("index", f"{server.url}/3.tar", "--to", tmp_path, *cache).error


def mending_command(folder):
    """What the message about a changed shard says to do."""
    with pytest.raises(UserError) as error:
        Manifest.load(folder)
        captions(folder)
    words = shlex.split(str(error.value).split("`")[1])
    assert words[0] == "bimodal-prep" and "\n" not in str(error.value)
    return words[1:]


def test_the_command_that_a_message_gives_works(prep, tars, tmp_path):
    """For shards in the manifest's folder, elsewhere and both; damaged ones too."""
    other, to = tmp_path / "an other", tmp_path / "to"
    other.mkdir()
    to.mkdir()
    for n in range(8, 12):
        write_tar(other / f"s{n}.tar", [(f"{n}.jpg", photo(n)), (f"{n}.txt", b"x")])
    (other / "s13.tar").write_bytes((other / "s8.tar").read_bytes())
    (tars / "2.tar").rename(to / "2.tar")
    for folder, shards in ((tars, [tars]), (to, [f"{tars}/*.tar", to, other])):
        assert prep("index", *shards, "--to", folder).status == 0
    before = names(to)
    more = [("more.jpg", photo(1)), ("more.txt", b"more" * 9999)]
    write_tar(tars / "10.tar", more)
    assert mending_command(tars) == ["index", str(tars), "--overwrite"]
    assert prep(*mending_command(tars)).status == 0 and "more" * 9999 in captions(tars)
    expected = [f"{other}/s{{8..11}}.tar", f"{other}/s13.tar", f"{tars}/1.tar", f"{tars}/10.tar", f"{to}/2.tar"]
    command = mending_command(to)
    assert command[0] == "index" and sorted(command[1:6]) == sorted(expected)
    assert command[6:] == ["--to", str(to), "--overwrite"]
    assert prep(*command).status == 0 and names(to) == before and "more" * 9999 in captions(to)

    (tars / "10.tar").write_bytes((tars / "10.tar").read_bytes()[:3000])
    assert mending_command(tars)[-2:] == ["--damaged", "keep"]
    assert prep(*mending_command(tars)).status == 0
    write_tar(tars / "1.tar", [("1.jpg", photo(1)), ("1.txt", b"x" * 20_000)])
    assert prep(*mending_command(tars)).status == 0  # the damage was accepted, and is still


def test_a_message_holds_no_secret(tars):
    """Nor more words than people read."""
    url = "https://me:password@host/{}.tar?signature=abc"
    shards = tuple(Shard(url.format(n), 1, 1, 1) for n in (*range(7), *range(10, 30, 2)))
    command = Manifest(tars, "whole", shards).index_command
    assert command == (
        f"bimodal-prep index 'https://host/{{0..6}}.tar?...' 'https://host/10.tar?...' 'https://host/12.tar?...' "
        f"'https://host/14.tar?...' 'https://host/16.tar?...' ... --to {tars} --overwrite"
    )


def test_no_message_tells_the_secrets_of_a_url(prep, tars, tmp_path):
    write_tar(tars / "1.tar", [("1.jpg", photo(1)), ("1.txt", b"two\nlines"), ("2.jpg", b""), ("2.txt", b"x")])
    (tars / "2.tar").write_bytes((tars / "2.tar").read_bytes()[:3200])
    with serve(tars) as server:
        url = f"{server.url}/{{1,2}}.tar?signature=secret"
        flags = ("--to", tmp_path / "to", "--cache-dir", tmp_path / "cache")
        said = [prep("index", url).error, prep("index", url, *flags).error]
        assert f"({server.url}/1.tar?..., ...)" in said[0] and f"{server.url}/2.tar?...: truncated" in said[1]
        done = prep("index", url, *flags, "--damaged", "keep")
        assert f"{server.url}/2.tar?...: truncated" in done.err and "1.tar?...: 1 texts have several lines" in done.err
        said += [done.out, done.err]
        done = prep("verify", tmp_path / "to", *flags[2:])
        assert f"{server.url}/1.tar?... 2: zero_bytes" in done.out and f"{server.url}/2.tar?...: truncated" in done.out
        said += [done.out, done.err]
        (tars / "1.tar").unlink()
        done = prep("verify", tmp_path / "to", "--cache-dir", tmp_path / "empty", "--workers", 1)
        assert f"{server.url}/1.tar?...: unreadable: the server answers 404" in done.out
    assert not [text for text in (*said, done.out, done.err) if "secret" in text]


def test_commands_run_only_where_they_are_allowed(prep, tars, tmp_path):
    ran = tmp_path / "ran"
    pattern = f"pipe:touch {ran} && cat {tars}/{{1..2}}.tar"
    arguments = ("index", pattern, "--to", tmp_path / "to", "--cache-dir", tmp_path / "cache")
    assert "would run that command; if you trust its author, give --allow-pipe" in prep(*arguments).error
    assert not ran.exists() and not (tmp_path / "to").exists()
    done = prep(*arguments, "--allow-pipe")
    assert done.status == 0 and "4 images" in done.out and ran.exists()
    assert names(tmp_path / "to") == [f"pipe:touch {ran} && cat {tars}/{n}.tar" for n in (1, 2)]


def test_a_damaged_shard_is_refused_or_kept(prep, tars):
    path = tars / "2.tar"
    path.write_bytes(path.read_bytes()[:3200])  # inside the second sample
    error = prep("index", tars).error
    assert "2.tar: truncated: " in error and "; --damaged keep uses the intact samples before it" in error
    assert not (tars / "manifest.json").exists()
    done = prep("index", tars, "--damaged", "keep")
    assert done.status == 0 and "5 images, 5 captions (whole) in 3 shards" in done.out
    assert "2.tar: truncated: " in done.err and "; 1 samples kept" in done.err
    assert "  1 truncated (kept): the tar ends inside a member" in done.out
    manifest = Manifest.load(tars)
    assert (manifest.faults, manifest.damaged) == ({"truncated": 1}, "keep")
    assert captions(tars) == ["caption 1 0", "caption 1 1", "caption 2 0", "caption 10 0", "caption 10 1"]
    for table in (tars / "rows").iterdir():
        table.unlink()  # without tables the tars' headers give the same rows
    assert len(captions(tars)) == 5
    assert "--damaged keep" in prep("index", tars).error  # nor does a table of what was kept hide it
    assert "unchanged" in prep("index", tars, "--damaged", "keep").out


def test_faults_found_later_change_no_id(prep, tars):
    write_tar(tars / "11.tar", [("a.jpg", photo(1)), ("b.txt", b"alone")])
    assert prep("index", tars).status == 0
    manifest = Manifest.load(tars)
    assert manifest.faults == {"no_image": 1}
    Manifest(tars, "whole", manifest.shards).save()  # as a version that did not count wrote it
    done = prep("index", tars)
    assert done.status == 0 and "unchanged" not in done.out
    assert "  1 no_image (kept): " in done.out and "  1 no_caption (replaced): the image has no .txt" in done.out
    assert Manifest.load(tars) == manifest


def test_a_killed_index_is_taken_up_again(prep, tars):
    """The last shard is a command that does not end; then it is a tar."""
    waits = tars / "waits"
    waits.touch()
    pattern = f"pipe:while [ -e {waits} ]; do sleep 0.05; done"
    words = ("index", tars, pattern, "--to", tars, "--allow-pipe", "--workers", "2")
    process = start_prep(*words, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while len(list(tars.glob("rows/[0-9]*.rows"))) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        waits.unlink()
    assert not (tars / "manifest.json").exists()
    write_tar(tars / "11.tar", [("a.jpg", photo(1)), ("a.txt", b"late")])
    done = prep("index", tars)
    assert done.status == 0 and "3 of the shards were read before" in done.out
    assert names(tars) == ["1.tar", "2.tar", "10.tar", "11.tar"] and captions(tars)[-1] == "late"


def test_a_shard_that_changed_is_read_again(prep, tars):
    assert prep("index", tars).status == 0
    size = (tars / "2.tar").stat().st_size
    write_tar(tars / "2.tar", [("a.jpg", photo(2)), ("a.txt", b"one"), ("b.txt", b"two")])
    assert (tars / "2.tar").stat().st_size == size  # tars are padded
    assert "does not match these shards" in prep("index", tars).error
    with pytest.raises(UserError, match=r"2\.tar: holds 1 images and 1 captions but the manifest says 2 and 2; "):
        captions(tars)  # and not the rows of the old table
    done = prep("index", tars, "--overwrite")
    assert done.status == 0 and "5 images, 5 captions" in done.out
    assert "3 of the shards were read before" in done.out  # by the refused one


def test_a_shard_that_changes_meanwhile_is_refused(prep, tars, monkeypatch):
    """Or else its row table would look like that of the new one."""

    def index_and_rewrite(path, *arguments):
        index = index_shard(path, *arguments)
        if path.name == "2.tar":
            stat = path.stat()
            write_tar(path, [("a.jpg", photo(2)), ("a.txt", b"one"), ("b.txt", b"two")])
            os.utime(path, ns=(0, stat.st_mtime_ns + 10**9))
            assert path.stat().st_size == stat.st_size
        return index

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.indexing.shard_description.index_shard", index_and_rewrite)
        error = prep("index", tars, "--workers", 1).error
    assert f"shard {tars}/2.tar: changed while it was read" in error
    assert not (tars / "manifest.json").exists() and not (tars / "rows" / "2.tar.rows").exists()
    assert prep("index", tars).status == 0 and len(captions(tars)) == 5


def test_what_killed_indexes_left_is_removed(prep, tars):
    """Unless another one is at work."""
    (tars / "rows").mkdir()
    left = [tars / "rows" / ".1.tar.rows.123.tmp", tars / ".manifest.json.123.tmp"]
    others = [tars / "rows" / "notes.tmp", tars / ".other.tmp"]
    for path in (*left, *others):
        path.touch()
    with locked(tars):
        assert f"another command is writing to {tars}" in prep("index", tars).error
    assert all(path.exists() for path in left) and not (tars / "manifest.json").exists()
    assert prep("index", tars).status == 0
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


def test_what_is_wrong_with_the_command(prep, tars, tmp_path):
    assert "--cache-gb must be at least 0, got -1.0" in prep("index", "memory://a.tar", "--cache-gb", -1).error
    assert "did you mean 'keep'?" in prep("index", tars, "--damaged", "kep").error
    assert "matches no file" in prep("index", f"{tars}/*.zip").error
    assert "--num-workers: must be an integer of at least 1, got '0'" in prep("index", tars, "--workers", 0).error
    (tars / "\udcff.tar").write_bytes((tars / "1.tar").read_bytes())
    assert "\\udcff.tar: its name is not UTF-8" in prep("index", tars).error
