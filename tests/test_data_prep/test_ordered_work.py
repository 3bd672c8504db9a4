"""Several processes: the same bytes and messages as with one, few items ahead, and none left behind."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from bimodal_cl.errors import RunStopped
from data_prep import ordered_work
from data_prep.ordered_work import CHUNK, CHUNKS_AHEAD, FEW, map_in_order, map_shards
from tests.test_data_prep.raw_material import file_bytes, photo, read_folder, start_prep, write_files, write_photos

ROOT = Path(__file__).parents[2]


def square_slowly(number):
    time.sleep(random.Random(number).random() / 200)
    return number * number, os.getpid()


def die(number):
    if number == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number):
    if number == 70:
        raise ZeroDivisionError("of our own")
    return number


def test_results_come_in_order_from_several_processes():
    results = list(map_in_order(square_slowly, range(300), 3))
    assert [value for value, _ in results] == [n * n for n in range(300)]
    processes = {process for _, process in results}
    assert 2 <= len(processes) <= 3 and os.getpid() not in processes


def test_few_items_need_no_process():
    assert [process for _, process in map_in_order(square_slowly, range(FEW - 1), 3)] == [os.getpid()] * (FEW - 1)
    assert {process for _, process in map_in_order(square_slowly, range(FEW + 9), 1)} == {os.getpid()}
    assert list(map_in_order(square_slowly, [], 2)) == []


def test_few_items_are_taken_ahead_and_closing_ends_the_processes():
    taken = count()
    results = map_in_order(square_slowly, (next(taken) for _ in iter(int, 1)), 2)  # as many as are asked for
    processes = {next(results)[1] for _ in range(200)}
    assert 200 < next(taken) <= max(FEW, 200) + (2 * CHUNKS_AHEAD + 1) * CHUNK
    results.close()
    assert len(processes) == 2
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_a_killed_process_ends_the_run_with_one_line():
    with pytest.raises(RunStopped, match=r"one of the 2 processes was killed .*--num-workers"):
        list(map_in_order(die, range(100), 2))


def test_an_error_of_our_own_comes_through():
    with pytest.raises(ZeroDivisionError, match="of our own"):
        list(map_in_order(fail, range(100), 2))


def test_processes_end_with_a_killed_parent(tmp_path):
    code = (
        "import sys, os, time; sys.path.insert(0, 'tests'); from tests.test_data_prep import test_ordered_work as t\n"
        "from data_prep.ordered_work import map_in_order\n"
        "for n, (_, process) in enumerate(map_in_order(t.square_slowly, range(10**9), 2)):\n"
        "    if n < 100: print(process, flush=True)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    processes = {int(parent.stdout.readline()) for _ in range(100)}
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes and not [process for process in processes if Path(f"/proc/{process}").exists()]


def wait_for_ever(commands, shard):
    """Do what a download by a command does: wait for it, and end it if this process has to end."""
    with subprocess.Popen(["sleep", "600"]) as command:
        (commands / f"{os.getpid()} {command.pid}").touch()
        try:
            command.wait()
        finally:
            command.kill()


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_a_command_over_shards(tmp_path, end, forked):
    """Neither processes nor what they run, whether their parent alone is killed or interrupted."""
    code = (
        "from tests.test_data_prep import test_ordered_work as t; from functools import partial; import pathlib\n"
        "from data_prep.ordered_work import map_shards\n"
        f"function = partial(t.wait_for_ever, pathlib.Path({str(tmp_path)!r}))\n"
        f"list(map_shards(function, range(9), 2, (), forked={forked}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    left = [int(process) for path in tmp_path.iterdir() for process in path.name.split()]
    assert len(left) == 4
    parent.send_signal(end)
    parent.wait(timeout=20)
    while any(map(is_alive, left)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [process for process in left if is_alive(process)]


@pytest.mark.parametrize("forked", [False, True])
def test_shards_are_shared_one_by_one(forked):
    results = list(map_shards(square_slowly, range(9), 2, (), forked))
    assert [value for value, _ in results] == [n * n for n in range(9)]
    assert os.getpid() not in {process for _, process in results}
    assert [process for _, process in map_shards(square_slowly, range(1), 2, (), forked)] == [os.getpid()]
    assert list(map_shards(square_slowly, [], None, (), forked)) == []
    with pytest.raises(RunStopped, match=r"one of the 2 processes was killed .*--num-workers"):
        list(map_shards(die, range(70, 80), 2, (), forked))


def test_ctrl_c_ends_all_with_one_line(tmp_path):
    """A terminal sends it to every process of the command."""
    flags = ("write", "synthetic", "--num-train", "100000", "--shard-size", "32", "--num-proc", "2")
    process = start_prep(*flags, "--to", tmp_path / "to", start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "to/.partial/content/train/00003.tar").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    assert not (tmp_path / "to").exists()
    with pytest.raises(ProcessLookupError):  # soon nobody of its session is left
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.fixture
def source(tmp_path):
    """Plain images, images to scale and to convert, and some that cannot be used, on both sides of the first 64."""
    raw = write_photos(tmp_path / "raw", range(90), "a {n}\n\nb {n}\n")
    for n in range(3, 90, 10):
        write_files(raw, {f"img{n}.jpg": photo(n, (64, 48))})
    return write_files(raw, {"img7.jpg": b"<html>", "img71.txt": " \n", "img80.jpg": photo(80, format="GIF")})


def test_the_same_bytes_whatever_num_proc(write, source, tmp_path):
    said = []
    for number in (1, 2, 3):
        flags = ("--images", source, "--max-side", 32, "--shard-size", 25, "--num-proc", number)
        done = write("folder", *flags, to=str(number))
        assert done.status == 0
        said.append((done.out, [line for line in done.err.splitlines() if line.startswith("skipped")]))
    assert said[0] == said[1] == said[2]
    assert len(said[0][1]) == 2 and "2 items skipped" in said[0][0] and "images encoded again: resized" in said[0][0]
    assert file_bytes(tmp_path / "1") == file_bytes(tmp_path / "2") == file_bytes(tmp_path / "3")
    assert read_folder(tmp_path / "2").sample_keys == [f"img{n}" for n in range(90) if n not in (7, 71)]


def test_strict_stops_at_the_first_in_order(write, source, tmp_path):
    for number in (1, 2):
        error = write("folder", "--images", source, "--strict", "--num-proc", number).error
        assert "img7.jpg: not an image" in error
    assert not (tmp_path / "to").exists()


def test_drawn_pictures_too(write, tmp_path):
    sizes = ("--num-train", 400, "--num-val", 2, "--num-retrieval", 2, "--images-per-concept", 1, "--side", 32)
    for number in (1, 2):
        assert write("synthetic", *sizes, "--num-proc", number, to=str(number)).status == 0
    assert file_bytes(tmp_path / "1") == file_bytes(tmp_path / "2")


def test_wrong_numbers(write, source, tmp_path):
    error = write("folder", "--images", source, "--num-proc", 0).error
    assert "--num-workers: must be an integer of at least 1, got '0'" in error


def write_result(writer):
    """Write more than a pipe holds, as a process does that was told to end after its last item."""
    signal.signal(signal.SIGTERM, ordered_work._Stop.ask)
    writer.send_bytes(bytes(4 << 20))


def test_a_result_that_is_being_written_is_not_cut_short():
    """The parent would wait for its other half for ever."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=write_result, args=(writer,))
    process.start()
    writer.close()
    assert reader.poll(30)
    process.terminate()
    assert len(reader.recv_bytes()) == 4 << 20
    process.join()
