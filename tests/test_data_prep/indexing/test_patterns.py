"""Naming shards: braces, globs, folders and URLs; each once, in natural order; near misses in one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from bimodal_cl.errors import UserError
from data_prep.indexing.patterns import expand_braces, expand_locations


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for name in ("1.tar", "2.tar", "10.tar", "a[1].tar", "notes.txt", "sub/3.tar"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.fixture
def bucket() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for name in ("10.tar", "9.tar", "stats.json", "deep/1.tar"):
        files.pipe_file(f"/bucket/{name}", b"x")
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x.tar", ["x.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{008..011}", ["008", "009", "010", "011"]),
        ("{8..010}", ["008", "009", "010"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..10..5}", ["0", "5", "10"]),
        ("{a,b}{0..1}.tar", ["a0.tar", "a1.tar", "b0.tar", "b1.tar"]),
        ("{train-{0..1},val}", ["train-0", "val", "train-1", "val"]),
        ("{x}", ["{x}"]),
        ("{}", ["{}"]),
        ("{,x}y", ["y", "xy"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert list(expand_braces(pattern)) == names


def test_braces_that_stand_for_too_many_are_refused() -> None:
    with pytest.raises(UserError, match="stands for more than 1,000,000 shards"):
        list(expand_braces("{0..99999999}"))
    with pytest.raises(UserError, match="stands for more than 1,000,000 shards"):
        list(expand_braces("{0..999}{0..999}{0..9}"))


def test_folders_globs_and_braces_name_each_once_in_natural_order(tars: Path) -> None:
    everything = [str(tars / name) for name in ("1.tar", "2.tar", "10.tar", "a[1].tar")]
    assert expand_locations([str(tars)]) == everything
    assert expand_locations([f"{tars}/*.tar"]) == everything
    assert expand_locations([f"{tars}/10.tar", f"{tars}/{{1..2}}.tar", f"{tars}/sub/../1.tar"]) == everything[:3]
    assert expand_locations([f"{tars}/**/*.tar"]) == [*everything, str(tars / "sub/3.tar")]
    assert expand_locations([f"{tars}/a[1].tar"]) == everything[3:]  # what exists is meant as it is
    assert expand_locations([f"file://{tars}/2.tar"]) == everything[1:2]


def test_links_stay_apart(tars: Path) -> None:
    (tars / "sub/again.tar").symlink_to(tars / "1.tar")
    assert len(expand_locations([f"{tars}/1.tar", f"{tars}/sub/again.tar"])) == 2


def test_folders_and_globs_of_a_file_system(bucket: str) -> None:
    found = ["memory:///bucket/9.tar", "memory:///bucket/10.tar"]
    for pattern in (bucket, f"{bucket}/", f"{bucket}/*.tar", f"{bucket}/[0-9]*.tar"):
        assert expand_locations([pattern]) == found
    assert expand_locations([f"{bucket}/{{9..10}}.tar", bucket]) == [f"{bucket}/9.tar", f"{bucket}/10.tar"]
    with pytest.raises(UserError, match="memory://bucket/none/: no shard there"):
        expand_locations([f"{bucket}/none/"])


def test_urls_keep_their_queries() -> None:
    signed = [f"https://host/{n}.tar?signature=a*b" for n in range(2)]
    with pytest.raises(UserError, match=r"HTTP servers list no files; name the shards with braces, such as \{00000"):
        expand_locations(["https://host/*.tar"])
    with pytest.raises(UserError, match="HTTP servers list no files"):
        expand_locations(["http://host/shards/"])
    assert expand_locations(["https://host/{0..1}.tar?signature=a*b"]) == signed


def test_pipes_are_refused_unless_they_are_allowed() -> None:
    with pytest.raises(UserError, match=r"pipe:cat \{0\.\.1\}\.tar: would run that command; .* --allow-pipe"):
        expand_locations(["pipe:cat {0..1}.tar"])
    assert expand_locations(["pipe:cat {0..1}.tar"], allow_pipe=True) == ["pipe:cat 0.tar", "pipe:cat 1.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("subb", "no such folder: .*subb; did you mean 'sub'"),
        ("1o0.tar", "no such file: .*; did you mean '10.tar'"),
        ("sub/{3..4}.tar", "no such file: .*4.tar; did you mean '3.tar'"),
        ("*.zip", r"\*\.zip: matches no file"),
    ],
)
def test_what_is_not_there_is_named(tars: Path, pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        expand_locations([f"{tars}/{pattern}"])
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_an_unknown_protocol(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.tar in "):
        expand_locations([str(tmp_path)])
    with pytest.raises(UserError, match="nosuch"):
        expand_locations(["nosuch://bucket/"])
