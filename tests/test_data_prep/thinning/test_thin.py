"""``bimodal-prep thin`` copies whole samples of the images that stay, ``bimodal-prep concepts`` names all of them."""

import csv
import json
from collections import Counter

import pytest

from bimodal_cl.data import Manifest
from tests.test_data_prep.raw_material import photo, read_folder, read_tar, write_files, write_tar

NAMES = ["dog"] * 8 + ["cat"] * 6 + ["sea"] * 5 + ["owl"]
ORDER = [n * 7 % 20 for n in range(20)]  # concepts in turns


@pytest.fixture
def shards(prep, tmp_path):
    """Twenty images in shards of six: two captions, and metadata with the group and its number."""
    for place, number in enumerate(ORDER):
        name, key = NAMES[number], f"img{place:02d}"
        details = json.dumps({"group": {"name": name.upper()}, "number": number % 3, "tags": [name]})
        captions = f"a {name} runs\nlittle {name}s near tree {number}\n"
        write_files(
            tmp_path / "raw", {f"{key}.jpg": photo(number), f"{key}.txt": captions, f"{key}.json": details + "\n"}
        )
    to = tmp_path / "shards"
    assert prep("write", "folder", "--images", tmp_path / "raw", "--shard-size", 6, "--to", to).status == 0
    return to


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_concepts_of_all_images(prep, shards, tmp_path):
    done = prep("concepts", shards, "--to", tmp_path / "c.csv")
    assert done.status == 0 and "20 images, 4 concepts, 0 images without one" in done.out
    rows = read_table(tmp_path / "c.csv")
    assert [row["concept"] for row in rows] == [NAMES[number] for number in ORDER]
    assert [int(row["concept_count"]) for row in rows] == [NAMES.count(NAMES[number]) for number in ORDER]
    assert [(row["image_id"], row["key"]) for row in rows] == [(str(n), f"img{n:02d}") for n in range(20)]
    assert "give --overwrite" in prep("concepts", shards, "--to", tmp_path / "c.csv").error


def test_samples_that_stay_are_copied_whole(prep, shards, tmp_path):
    done = prep("thin", shards, "--to", tmp_path / "thin", "--shard-size", 4)
    assert done.status == 0, done.err
    rows, source, copied = read_table(tmp_path / "thin/concepts.csv"), read_folder(shards), done.samples()
    assert Counter(row["concept"] for row in rows) == {"dog": 8, "cat": 4, "sea": 3, "owl": 1}
    assert copied == [source[int(row["source_image_id"])] for row in rows]  # keys, every member, their bytes
    assert [row["key"] for row in rows] == copied.sample_keys == sorted(copied.sample_keys)
    assert [int(row["image_id"]) for row in rows] == list(range(16))
    for row in rows:
        before, after = NAMES.count(row["concept"]), {"dog": 8, "cat": 4, "sea": 3, "owl": 1}[row["concept"]]
        assert (int(row["concept_count_before"]), int(row["concept_count_after"])) == (before, after)
    manifest = Manifest.load(tmp_path / "thin")
    assert (manifest.num_images, manifest.num_texts, len(manifest.shards)) == (16, 32, 4)
    assert manifest.captions == "lines" and all(shard.sha256 for shard in manifest.shards)
    assert "0 faults" in prep("verify", tmp_path / "thin").out


def test_the_same_command_writes_the_same_bytes_and_refuses_a_finished_folder(prep, shards, tmp_path):
    for name in ("one", "two"):
        assert prep("thin", shards, "--exponent", 2, "--seed", 3, "--to", tmp_path / name).status == 0
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.is_file()}
        for name in ("one", "two")
    )
    assert one == two and {"00000.tar", "manifest.json", "concepts.csv"} == set(one)
    assert "is finished" in prep("thin", shards, "--to", tmp_path / "one").error
    assert prep("thin", shards, "--exponent", 0, "--to", tmp_path / "one", "--overwrite").status == 0
    assert Manifest.load(tmp_path / "one").num_images == 20
    assert "--to must differ" in prep("thin", shards, "--to", shards, "--overwrite").error


def test_metadata_name_the_concepts(prep, shards, tmp_path):
    assert prep("concepts", shards, "--field", "group.name", "--to", tmp_path / "c.csv").status == 0
    assert {row["concept"] for row in read_table(tmp_path / "c.csv")} == {"DOG", "CAT", "SEA", "OWL"}
    assert prep("concepts", shards, "--field", "number", "--to", tmp_path / "n.csv").status == 0
    assert {row["concept"] for row in read_table(tmp_path / "n.csv")} == {"0", "1", "2"}
    to = ("--to", tmp_path / "x")
    assert (
        "00000.tar: img00.json: no key 'gruop.name'; did you mean 'group'"
        in prep("thin", shards, "--field", "gruop.name", *to).error
    )
    assert "'tags' holds a list" in prep("thin", shards, "--field", "tags", *to).error
    assert not (tmp_path / "x").exists()


def test_a_table_names_the_concepts_by_id_or_by_key(prep, shards, tmp_path):
    by_key = "key,more,concept\nimg03,1,one\nimg19,2,one\nimg05,3,\n"
    write_files(tmp_path, {"key.csv": "\ufeff" + by_key, "id.csv": "concept,image_id\r\none,3\r\none,19\r\n"})
    for name in ("key.csv", "id.csv"):
        done = prep("thin", shards, "--concepts", tmp_path / name, "--to", tmp_path / f"to-{name}")
        assert done.samples().sample_keys == ["img03", "img19"]
        assert "18 images left out" in done.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image_id,conzept\n1,a\n", "no column 'concept'; did you mean 'conzept'"),
        ("concept,imageid\na,1\n", "no column 'image_id'; did you mean 'imageid'"),
        ("image_id,concept\n1.5,a\n", "line 2: image_id '1.5' is not a whole number"),
        ("image_id,concept\n1,a\n1,b\n", "line 3: image_id 1 comes twice"),
        ("key,concept\nimg01,a\nimg01,b\n", "line 3: key 'img01' comes twice"),
        ("image_id,key,concept\n2,img07,a\n", "image_id 2 has the key 'img07', but 'img02' in these shards"),
        ("image_id,concept\n20,a\n", "image_id 20 is outside [0, 20), so the table is one of other shards"),
        ("key,concept\n99,a\n", "its first key is '99', that of the shards 'img00'"),
        ('image_id,concept\n1,"a\n', "cannot be read"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(prep, shards, tmp_path, content, message):
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_text(content)
    error = prep("thin", shards, "--concepts", path, "--to", tmp_path / "to").error
    assert message in error and error.count("table.csv") == 1
    assert not (tmp_path / "to").exists()


def test_captions_that_name_nothing_are_refused(prep, tmp_path):
    write_files(tmp_path / "raw", {"a.jpg": photo(0), "a.txt": "running"})
    assert prep("write", "folder", "--images", tmp_path / "raw", "--to", tmp_path / "in").status == 0
    error = prep("thin", tmp_path / "in", "--to", tmp_path / "to").error
    assert error.endswith("in: no image has a concept by the words of the captions")
    assert (
        "no image has a concept by the field 'x'"
        in prep("concepts", tmp_path / "in", "--field", "x", "--to", tmp_path / "c.csv").error
    )
    assert not (tmp_path / "to").exists() and not (tmp_path / "c.csv").exists()


def test_shards_from_elsewhere(prep, tmp_path):
    """Captions as whole texts, a second image, a dotted key, an image without a text."""
    first = [
        ("a.b.png", photo(1, format="PNG")),
        ("a.b.jpg", photo(2)),
        ("a.b.txt", b"a dog\nand a dog"),
        ("a.b.x", b"y"),
    ]
    members = [*first, ("none.jpg", photo(3)), ("d.jpg", photo(4)), ("d.caption", b"a dog")]
    write_tar(tmp_path / "in/0.tar", members)
    assert prep("index", tmp_path / "in", "--captions", "whole").status == 0
    done = prep("thin", tmp_path / "in", "--to", tmp_path / "to")
    assert done.status == 0 and "1 images left out" in done.out
    (key, whole), (_, second) = read_tar(tmp_path / "to/00000.tar")
    assert key.startswith("a_b-") and list(whole) == ["png", "jpg", "txt", "x"]  # the first image is still first
    assert whole["txt"] == b"a dog\nand a dog" and second == {"jpg": photo(4), "caption": b"a dog"}
    manifest = Manifest.load(tmp_path / "to")
    assert (manifest.captions, manifest.num_images, manifest.num_texts) == ("whole", 2, 2)


def test_shards_behind_urls(prep, shards, tmp_path):
    """A manifest here, its shards elsewhere: they are read through the cache, and the subset is local."""
    content = json.loads((shards / "manifest.json").read_text())
    for entry in content["shards"]:
        entry["name"] = f"file://{shards / entry['name']}"
    write_files(tmp_path / "here", {"manifest.json": json.dumps(content)})
    cache = ("--cache-dir", tmp_path / "cache", "--cache-gb", 0.01)
    assert prep("thin", tmp_path / "here", "--to", tmp_path / "one", *cache).status == 0
    assert list((tmp_path / "cache").iterdir())
    assert prep("thin", shards, "--to", tmp_path / "two").status == 0
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")


def test_a_shard_that_is_not_the_manifests_is_refused(prep, shards, tmp_path):
    content = json.loads((shards / "manifest.json").read_text())
    first = shards / "00000.tar"
    write_tar(first, [("img00.jpg", photo(0)), ("img00.txt", b"a dog")])
    content["shards"][0].update(bytes=first.stat().st_size)
    (shards / "manifest.json").write_text(json.dumps(content))
    error = prep("thin", shards, "--to", tmp_path / "to").error
    assert "00000.tar: holds 1 images but the manifest says 6; `bimodal-prep index" in error
    assert not (tmp_path / "to").exists()
