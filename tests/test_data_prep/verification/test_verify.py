"""Planted faults are found by shard and key; clean copies are clean."""

import errno
import json
import os

import pytest

from bimodal_cl.data import Manifest
from bimodal_cl.data.tar.samples import open_samples
from data_prep.writing.tar_file import TarWriter
from tests.test_data_prep.raw_material import captions_of, file_bytes, photo, read_folder, read_tar, write_tar


@pytest.fixture
def shards(write_shards):
    return write_shards(8, 2)


def replace_members(tar, edit):
    """Write the tar again with each member's (name, data) as ``edit`` wants it; None drops the member."""
    members = [(f"{key}.{ext}", data) for key, sample in read_tar(tar) for ext, data in sample.items()]
    write_tar(tar, [kept for member in members if (kept := edit(*member)) is not None])


def fault_lines(done):
    """The lines of the faults: those before the sums, which are one line and one a kind. Notes are left out."""
    lines = done.out.splitlines()
    at = next(n for n, line in enumerate(lines) if " images, " in line and " faults, " in line)
    faults = [line for line in lines[:at] if ": note: " not in line]
    assert f" {len(faults):,} faults, {at - len(faults):,} notes" in lines[at]
    assert all(line.startswith("  ") for line in lines[at + 1 :])
    return faults


def test_all_is_well(prep, shards):
    for workers in (1, 2):
        done = prep("verify", shards, "--workers", workers)
        assert done.status == 0 and "8 images, 0 faults, 0 notes" in done.out
    (shards / "manifest.json").unlink()
    assert prep("verify", shards, "--captions", "lines").status == 0


def test_one_flipped_bit(prep, shards):
    tar = shards / "00002.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"a 5")] ^= 0x04  # "a" becomes "e": all is still valid, only the hash tells
    tar.write_bytes(data)
    done = prep("verify", shards, "--workers", 1)
    assert done.status == 1
    assert fault_lines(done) == ["00002.tar: manifest: its bytes differ from what was written (sha256)"]


def test_faults_of_samples(prep, shards, tmp_path):
    edits = {
        "img0.jpg": photo(0)[:-150],
        "img1.txt": b"good line\ncaf\xe9",
        "img2.jpg": b"<html>",
        "img3.txt": b" \n\n",
        "img4.txt": None,
        "img5.jpg": None,
        "img6.txt": b"\xe9\xff",
        "img7.jpg": photo(7, format="TIFF"),
    }
    for tar in sorted(shards.glob("*.tar")):
        replace_members(tar, lambda name, data: None if edits.get(name, 1) is None else (name, edits.get(name, data)))
    (shards / "manifest.json").unlink()
    done = prep("verify", shards, "--captions", "lines")
    assert done.status == 1
    expected = [
        ("00000.tar img0: undecodable: image .jpg: ", "runcated"),
        ("00000.tar img1: note: not_utf8: caption is not UTF-8", "byte 13"),
        ("00001.tar img2: undecodable: image .jpg: ", "not an image that can be read (its bytes are HTML)"),
        ("00001.tar img3: empty_caption: ", "blank"),
        ("00002.tar img4: no_caption: has no .txt", ""),
        ("00002.tar img5: no_image: only .txt", ""),
        ("00003.tar img6: note: not_utf8: caption is not UTF-8", "byte 0"),
        ("00003.tar img7: note: wrong_extension: is TIFF, not .jpg", ""),
    ]
    found = done.out.splitlines()[:8]
    assert f"{shards}: 7 images, 5 faults, 3 notes" == done.out.splitlines()[8]
    assert len(found) == len(expected)
    for line, (start, part) in zip(found, expected, strict=True):
        assert line.startswith(start) and part in line, line
    before = file_bytes(shards)
    done = prep("verify", shards, "--captions", "lines", "--repair")
    assert done.status == 0 and "clean copy: " in done.out and file_bytes(shards) == before
    samples = read_folder(tmp_path / "to-repaired")
    assert [(key, captions_of((key, members))) for key, members in samples] == [
        ("img1", ["good line", "caf\ufffd"]),
        ("img6", ["\ufffd\ufffd"]),
        ("img7", ["a 7", "b 7"]),
    ]
    assert prep("verify", tmp_path / "to-repaired").out.startswith(
        f"{tmp_path / 'to-repaired'}: 3 images, 0 faults, 0 n"
    )


def test_truncated_shard(prep, shards, tmp_path):
    """Whatever the place of the cut: named, and the copy holds what is whole and nothing that is not."""
    tar = shards / "00003.tar"
    data, whole = tar.read_bytes(), dict(read_tar(tar))
    for number, cut in enumerate((100, 512, 900, 2048 + 100, data.rindex(b"b 7") + 1, data.rindex(b"b 7") - 600)):
        tar.write_bytes(data[:cut])
        done = prep("verify", shards, "--workers", 1)
        assert done.status == 1
        lines = [line for line in fault_lines(done) if line.startswith("00003.tar")]
        assert f"00003.tar: manifest: has {cut:,} bytes, the manifest says {len(data):,}" in lines
        assert len(lines) >= 2  # and what is wrong with the tar itself
        to = tmp_path / f"repaired{number}"
        assert prep("verify", shards, "--repair", "--to", to, "--workers", 1).status == 0
        for key, members in read_folder(to)[6:]:
            assert members == whole[key]
        assert prep("verify", to, "--workers", 1).status == 0


def test_a_cut_inside_a_text_does_not_shorten_it(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.jpg", photo(1)), ("1.txt", b"x"), ("2.jpg", photo(2)), ("2.txt", b"not black")])
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: data.index(b"not black") + 3])
    with open_samples(tmp_path / "a.tar") as tar:
        assert [(sample.key, list(sample.members)) for sample in tar.samples] == [("1", [".jpg", ".txt"])]
        assert tar.read(tar.samples[0], ".jpg") == photo(1) and tar.read(tar.samples[0], ".txt") == b"x"
        assert tar.cut is not None and (tar.cut.key, list(tar.cut.members)) == ("2", [".jpg"])
        assert tar.damage is not None and tar.damage.kind == "truncated"


def test_garbage_in_the_middle(prep, shards, tmp_path):
    tar = shards / "00000.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"img1.jpg")
    data[at : at + 512] = b"\x5a" * 512
    tar.write_bytes(data)
    done = prep("verify", shards, "--workers", 1)
    assert done.status == 1
    assert any("00000.tar: garbage: " in line and f"byte {at}" in line for line in fault_lines(done))
    assert prep("verify", shards, "--repair", "--to", tmp_path / "copy").status == 0
    assert read_folder(tmp_path / "copy").sample_keys == ["img0", *(f"img{n}" for n in range(2, 8))]


def test_manifest_and_files_that_do_not_fit(prep, shards):
    (shards / "00001.tar").unlink()
    (shards / "extra.tar").write_bytes((shards / "00000.tar").read_bytes())
    lines = fault_lines(prep("verify", shards, "--workers", 1))
    assert "00001.tar: manifest: is in the manifest but missing" in lines
    assert "extra.tar: manifest: is not in manifest.json" in lines
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda m: m.update(version=2), "version 2"),
        (lambda m: m.update(num_images=9), "num_images is 9"),
        (lambda m: m.update(extra=1), "unknown key 'extra'"),
        (lambda m: m["shards"][1].update(num_texts=3) or m.update(num_texts=15), "the manifest says 2 and 3"),
    ],
)
def test_wrong_manifests(prep, shards, edit, part):
    content = json.loads((shards / "manifest.json").read_text())
    edit(content)
    (shards / "manifest.json").write_text(json.dumps(content))
    done = prep("verify", shards, "--captions", "lines")
    assert done.status == 1 and any(part in line for line in fault_lines(done))


def test_foreign_names_and_repeated_keys(prep, tmp_path):
    folder = tmp_path / "shards"
    first = [("caf\udce9.jpg", photo(1)), ("caf\udce9.txt", b"x"), ("a.b.jpg", photo(2)), ("a.b.txt", b"y")]
    again = [("a.b.jpg", photo(3)), ("a.b.txt", b"z\nz"), ("\udce9.jpg", b"broken"), ("\udce9.txt", b"x")]
    write_tar(folder / "0.tar", [*first, *again])
    done = prep("verify", folder)
    assert done.status == 1
    repeated, broken = fault_lines(done)
    assert done.out.count("0.tar a.b: note: dotted_key: a key with dots in it; it ends at the last dot\n") == 2
    assert repeated == "0.tar a.b: duplicate_key: an earlier sample has the same key"
    assert broken.startswith("0.tar \\xe9: undecodable: image .jpg: ")
    done.out.encode()  # a name that is not UTF-8 can be printed
    assert prep("verify", folder, "--repair", "--to", tmp_path / "copy").status == 0
    samples = read_folder(tmp_path / "copy")
    assert samples.captions == [["x"], ["y"], ["z z"]]
    assert prep("verify", tmp_path / "copy").status == 0
    assert Manifest.load(tmp_path / "copy").num_texts == 3
    write_tar(
        folder / "0.tar", [("a.b.jpg", photo(2)), ("a.b.txt", b"y"), ("c.d/e.jpg", photo(1)), ("c.d/e.txt", b"x")]
    )
    done = prep("verify", folder)  # a note is no fault; dots of a folder are none of the key's
    assert done.status == 0 and "2 images, 0 faults, 1 notes" in done.out
    assert "  1 dotted_key (used): a key with dots in it; it ends at the last dot" in done.out
    assert "  1 dotted_key (kept): a key with dots in it; it ends at the last dot" in prep("index", folder).out
    assert Manifest.load(folder).faults == {"dotted_key": 1}


def test_members_whose_names_fit_no_header_are_left_out_of_the_copy(prep, tmp_path):
    key = "k" * 70
    members = [
        (f"{key}.jpg", photo(1)),
        (f"{key}.txt", b"one"),
        (f"{key}.{'x' * 40}", b"too long"),
        (f"{key}.{'é' * 15}", b"too many bytes"),
        (f"{key}.{'x' * 29}", b"just fits"),
    ]
    write_tar(tmp_path / "shards" / "0.tar", members)
    done = prep("verify", tmp_path / "shards", "--repair", "--to", tmp_path / "copy")
    assert done.status == 0 and "clean copy: " in done.out
    assert done.out.splitlines()[-1].endswith("1 images, no fault; 2 members with long names are not in it")
    assert f"0.tar {key}: .{'x' * 40} is left out of the copy: its name is longer than the 100 bytes of a " in done.err
    assert [(k, set(sample)) for k, sample in read_folder(tmp_path / "copy")] == [(key, {"jpg", "txt", "x" * 29})]


def test_wrong_uses(prep, shards, tmp_path):
    assert "no such folder" in prep("verify", tmp_path / "nowhere").error
    assert "--max-pixels must be at least 1" in prep("verify", shards, "--max-pixels", 0).error
    assert "--to requires --repair" in prep("verify", shards, "--to", tmp_path / "x").error
    assert "must differ from" in prep("verify", shards, "--repair", "--to", shards).error
    assert prep("verify", shards, "--repair", "--to", tmp_path / "copy").status == 0
    assert "is finished" in prep("verify", shards, "--repair", "--to", tmp_path / "copy").error
    broken = tmp_path / "broken"
    write_tar(broken / "0.tar", [("a.jpg", b"x"), ("a.txt", b"y")])
    assert "no sample of" in prep("verify", broken, "--repair", "--to", tmp_path / "none").error
    assert not (tmp_path / "none").exists()


def test_a_disk_that_fails(prep, shards, tmp_path, monkeypatch):
    """The sample that cannot be read is named, and the others are copied."""
    data = (shards / "00001.tar").read_bytes()
    bad = data.index(photo(3))
    pread = os.pread

    def fail(descriptor, size, offset):
        if offset == bad and size == len(photo(3)):
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", fail)
    done = prep("verify", shards, "--workers", 1)
    assert done.status == 1 and fault_lines(done) == ["00001.tar img3: unreadable: Input/output error"]
    assert prep("verify", shards, "--workers", 1, "--repair", "--to", tmp_path / "copy").status == 0
    assert read_folder(tmp_path / "copy").sample_keys == [f"img{n}" for n in range(8) if n != 3]


def test_a_full_disk_is_no_fault_of_the_source(prep, shards, tmp_path, monkeypatch):
    """A copy that cannot be written ends the command; none with fewer samples is left."""
    write_sample = TarWriter.write_sample

    def fill(self, key, members):
        if key == "img3":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_sample(self, key, members)

    monkeypatch.setattr(TarWriter, "write_sample", fill)
    done = prep("verify", shards, "--workers", 1, "--repair", "--to", tmp_path / "copy")
    assert done.status == 1 and "unreadable" not in done.out and "clean copy" not in done.out
    assert done.err.splitlines()[-1] == f"error: no space left on the disk: {tmp_path / 'copy'}"
    assert not (tmp_path / "copy").exists()


def test_shards_that_are_elsewhere(prep, shards, tmp_path):
    """A manifest here, its shards behind URLs: read through the cache, named by URL, copied under numbers."""
    content = json.loads((shards / "manifest.json").read_text())
    here = tmp_path / "here"
    here.mkdir()
    tar = shards / "00001.tar"
    replace_members(tar, lambda name, data: (name, b"" if name == "img3.jpg" else data))
    for entry in content["shards"]:
        entry["name"] = f"file://{shards / entry['name']}"
    content["shards"][1].update(bytes=tar.stat().st_size)
    del content["shards"][1]["sha256"]
    (here / "manifest.json").write_text(json.dumps(content))
    cache = ("--cache-dir", tmp_path / "cache", "--cache-gb", 0.01)
    done = prep("verify", here, "--workers", 1, *cache)
    assert done.status == 1 and "8 images, 1 faults" in done.out
    assert fault_lines(done) == [f"file://{tar} img3: zero_bytes: image .jpg: zero bytes"]
    assert list((tmp_path / "cache").iterdir())
    done = prep("verify", here, "--repair", "--to", tmp_path / "copy", *cache)
    assert done.status == 0 and "7 images" in done.out
    assert read_folder(tmp_path / "copy").sample_keys == [f"img{n}" for n in range(8) if n != 3]
    assert [shard.name for shard in Manifest.load(tmp_path / "copy").shards] == [f"{n:05d}.tar" for n in range(4)]
    tar.unlink()
    (line,) = fault_lines(prep("verify", here, "--workers", 1, "--cache-dir", tmp_path / "new"))
    assert line.startswith(f"file://{tar}: ")


def test_commands_run_only_where_they_are_allowed(prep, shards, tmp_path):
    content = json.loads((shards / "manifest.json").read_text())
    here = tmp_path / "here"
    here.mkdir()
    content["shards"] = content["shards"][:1]
    content["shards"][0].update(name=f"pipe:touch {tmp_path / 'ran'}; cat {shards / '00000.tar'}")
    content.update(num_images=2, num_texts=4)
    (here / "manifest.json").write_text(json.dumps(content))
    flags = ("verify", here, "--workers", 1, "--cache-dir", tmp_path / "cache")
    done = prep(*flags)
    assert done.status == 1 and "--allow-pipe" in fault_lines(done)[0] and not (tmp_path / "ran").exists()
    done = prep(*flags, "--allow-pipe")
    assert done.status == 0 and "2 images, 0 faults" in done.out and (tmp_path / "ran").exists()
