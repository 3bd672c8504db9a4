"""A folder of images with texts beside them."""

import json
import unicodedata

from bimodal_cl.data import Manifest
from bimodal_cl.data.pairs import read_pairs
from tests.test_data_prep.raw_material import captions_of, image_of, photo, read_folder, write_files, write_photos


def test_natural_order_sub_folders_and_metadata(write, tmp_path):
    raw = write_photos(tmp_path / "raw", [10, 2, 1], "a {n}\nb {n}\n")
    metadata = b'{"url": "somewhere",  "n": 1}\n'
    write_files(raw, {"sub/x.png": photo(5, format="PNG"), "sub/x.txt": "in a sub-folder", "img1.json": metadata})
    done = write("folder", "--images", raw)
    assert "4 images, 7 captions" in done.out
    samples = done.samples()
    assert samples.sample_keys[:3] == ["img1", "img2", "img10"]
    assert samples.images == [photo(1), photo(2), photo(10), photo(5, format="PNG")]
    assert samples.captions[2:] == [["a 10", "b 10"], ["in a sub-folder"]]
    assert samples[0][1]["json"] == metadata and "json" not in samples[1][1]
    assert list(samples[0][1]) == ["jpg", "json", "txt"]


def test_lines_or_whole(write, tmp_path):
    raw = write_files(tmp_path / "raw", {"a.jpg": photo(0), "a.txt": "\ufefffirst\u2028half\r\n\r\nsecond\r\n"})
    lines = write("folder", "--images", raw, to="lines")
    assert lines.status == 0 and "1 empty captions dropped" in lines.out
    assert captions_of(read_folder(tmp_path / "lines")[0]) == ["first half", "second"]
    assert write("folder", "--images", raw, "--captions", "whole", to="whole").status == 0
    (caption,) = captions_of(read_folder(tmp_path / "whole")[0])
    assert caption.split() == ["first", "half", "second"]


def test_unusable_items_are_named(write, tmp_path):
    raw = write_photos(tmp_path / "raw", [0])
    write_files(raw, {"sub/lone.jpg": photo(1), "latin.jpg": photo(2), "latin.txt": b"caf\xe9"})
    write_files(
        raw, {"blank.jpg": photo(3), "blank.txt": " \n\n", "meta.jpg": photo(4), "meta.txt": "x", "meta.json": "{"}
    )
    write_files(raw, {"no.jpg": b"<html>not found</html>", "no.txt": "x", "zero.png": b"", "zero.txt": "x"})
    done = write("folder", "--images", raw)
    assert len(done.samples()) == 1
    assert "6 items skipped" in done.out
    for line in (
        "skipped sub/lone.jpg: no lone.txt in the same folder",
        "skipped latin.txt: byte 0xe9 on line 1 is not UTF-8; save it as UTF-8",
        f"skipped {raw / 'blank.jpg'}: no caption",
        "skipped meta.json: not JSON",
        f"skipped {raw / 'no.jpg'}: not an image",
        f"skipped {raw / 'zero.png'}: zero bytes",
    ):
        assert line in done.err


def test_no_folder_and_no_image(write, tmp_path):
    write_files(tmp_path / "photos", {"readme.md": "no picture here"})
    error = write("folder", "--images", tmp_path / "photo").error
    assert "--images: no such folder" in error and "did you mean 'photos'?" in error
    error = write("folder", "--images", tmp_path / "photos").error
    assert "no image (.jpg, .jpeg, .png" in error and str(tmp_path / "photos") in error


def test_written_folders_stream(write_shards):
    """What the writer writes, the library reads: ids, captions and pixels."""
    folder = write_shards(5, 2)
    manifest = Manifest.load(folder)
    assert [shard.num_images for shard in manifest.shards] == [2, 2, 1] and manifest.captions == "lines"
    pairs = read_pairs(folder, range(5))
    assert [pairs[n].captions for n in range(5)] == [[f"a {n}", f"b {n}"] for n in range(5)]
    assert [pairs[n].first_text_id for n in range(5)] == [0, 2, 4, 6, 8]
    assert json.loads((folder / "manifest.json").read_text())["num_texts"] == 10


def test_texts_whose_names_spell_accented_letters_otherwise(write, tmp_path):
    """Of one code point or of two, as macOS writes them; the same spelling comes first where both are there."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    raw = write_files(tmp_path / "a", {f"{decomposed}.jpg": photo(1), f"{composed}.TXT": "one\n"})
    write_files(raw, {f"{composed}.json": "{}"})
    both = write_files(tmp_path / "b", {f"{name}.jpg": photo(n) for n, name in enumerate((composed, decomposed))})
    write_files(both, {f"{name}.txt": f"{n}\n" for n, name in enumerate((composed, decomposed))})
    (sample,) = write("folder", "--images", raw, to="to_a").samples()
    assert captions_of(sample) == ["one"] and sample[1]["json"] == b"{}"
    assert write("folder", "--images", both, to="to_b").status == 0
    found = {captions_of(sample)[0]: image_of(sample) for sample in read_folder(tmp_path / "to_b")}
    assert found == {"0": photo(0), "1": photo(1)}
