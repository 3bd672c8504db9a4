"""The command itself: help without torch, near misses, progress."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bimodal_cl.cli import progress
from tests.test_data_prep.raw_material import photo, read_folder, write_files, write_photos

ROOT = Path(__file__).parents[2]
HELP = """
import sys
from data_prep.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    heavy = {"torch", "open_clip", "webdataset", "transformers", "pydantic", "datasets", "pyarrow", "fsspec"}
    loaded = heavy & set(sys.modules)
    sys.exit(f"loaded {loaded}" if loaded else end.code)
"""


@pytest.mark.parametrize(
    "words", [(), ("write",), ("write", "csv"), ("write", "hf"), ("index",), ("concepts",), ("thin",), ("verify",)]
)
def test_help_is_fast_and_loads_no_torch(words):
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", HELP, *words, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: bimodal-prep" in done.stdout
    assert time.perf_counter() - start < 10  # half a second on an idle machine; torch would take several of these


def test_writing_loads_no_torch(tmp_path):
    raw = write_photos(tmp_path / "raw", range(2), "a dog\n")
    code = (
        "import sys; from data_prep.cli import main; raw, to = sys.argv[1:]\n"
        "status = main(['write', 'folder', '--images', raw, '--to', to]) + main(['index', to]) + main(['verify', to])\n"
        "status += main(['thin', to, '--to', to + '-thin'])\n"
        "sys.exit('torch' in sys.modules or status)"
    )
    done = subprocess.run([sys.executable, "-c", code, raw, tmp_path / "to"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "write: 2 items in" in done.stderr and "verify: 1 shards in" in done.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("wirte", "did you mean 'write'?"),
        ("write karpaty", "did you mean 'karpathy'?"),
        ("write folder --images x --to y --max-sid 9", "unknown flag '--max-sid'; did you mean '--max-side'?"),
        ("write csv --cvs x --to y", "unknown flag '--cvs'; did you mean '--csv'?"),
        ("write csv --to y", "the following arguments are required: --csv"),
        ("write csv --csv x --to y --caption-colum z", "did you mean '--caption-column'?"),
        ("write folder --images x --to y --quality high", "--quality"),
        ("write hf --dataset x --to y --caption-colum z", "did you mean '--caption-column'?"),
        ("write img2dataset x --to y --num-prok 2", "did you mean '--num-workers'?"),
        ("thin x --to y --expnent 2", "did you mean '--exponent'?"),
        ("thin x --to y --exponent -1", "--exponent: must be a number of at least 0, got '-1'"),
        ("thin x --to y --field a --concepts b", "not allowed with"),
        ("verify x --repiar", "did you mean '--repair'?"),
        ("index x --captions line", "did you mean 'lines'?"),
        ("write folder --images x", "--to"),
        ("", "COMMAND"),
    ],
)
def test_near_misses(prep, words, part):
    assert part in prep(*words.split()).error


def test_progress_on_a_terminal_and_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.0)
    assert list(progress.progress(iter("abc"), 3, "letters", "read")) == ["a", "b", "c"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and lines[1].startswith("read: 2 of 3 letters, ") and " left" in lines[1]
    assert lines[-1].startswith("read: 3 letters in 0 s (")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.progress(iter("ab"), 2, "letters", "read")) == ["a", "b"]
    progress.note("one line")
    shown = capsys.readouterr().err
    assert "100%" in shown and "2/2" in shown and "one line" in shown
    assert [progress.format_duration(s) for s in (0, 59.4, 59.6, 125, 3600, 7860)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "2 min 05 s",
        "1 h 00 min",
        "2 h 11 min",
    ]


def test_shards_hold_as_many_as_they_are_told_to(write, tmp_path):
    raw = write_files(
        tmp_path / "raw", {f"{n}.{ext}": photo(n) if ext == "jpg" else "x" for n in range(25) for ext in ("jpg", "txt")}
    )
    assert write("folder", "--images", raw, "--shard-size", 10).status == 0
    assert [path.name for path in sorted((tmp_path / "to").glob("*.tar"))] == ["00000.tar", "00001.tar", "00002.tar"]
    assert read_folder(tmp_path / "to").sample_keys == [str(n) for n in range(25)]
