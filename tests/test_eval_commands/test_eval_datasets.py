"""Prompts, class names and names of data sets."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest

from bimodal_cl.scoring.zero_shot import DEFAULT_TEMPLATES
from eval.class_prompts import classname_lists, load_classnames, load_templates, prompt_names
from eval.datasets import dataset_name
from tests.refusals import refused


def test_every_prompt_file_that_comes_along_loads():
    assert {"photo", "caption"} <= set(prompt_names())
    for name in prompt_names():
        templates = load_templates(name)
        assert len(templates) == len(set(templates))
    assert load_templates("photo") == ["a photo of a {c}."]
    assert all("{c}" in template for template in DEFAULT_TEMPLATES)


def test_imagenets_prompts_and_names_are_open_clips():
    eighty, seven = load_templates("imagenet"), load_templates("imagenet-simple")
    assert (len(eighty), len(seven)) == (80, 7) and set(seven) <= set(eighty)
    assert eighty == [template("{c}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert load_classnames("imagenet").names == list(open_clip.IMAGENET_CLASSNAMES)


def test_class_names_that_come_along():
    assert classname_lists() == ["cifar10", "cifar100", "imagenet"]
    for name, count in (("cifar10", 10), ("cifar100", 100)):
        names = load_classnames(name).names
        assert len(set(names)) == count and names == sorted(names)  # as both data sets number them
    with refused("--classnames cifar: no such file; did you mean 'cifar10'"):
        load_classnames("cifar")


def test_reads_templates_from_a_file(tmp_path):
    file = tmp_path / "own.txt"
    file.write_text("# mine\n\nan icon of {c}\n{c}, drawn\n")
    assert load_templates(str(file)) == ["an icon of {c}", "{c}, drawn"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a photo\n", r"template 'a photo' has no \{c\}"),
        ("a {}\n", "no .* goes; write {c} for {}"),
        ("# nothing\n", "holds no template"),
    ],
)
def test_refuses_a_useless_template_file(content, message, tmp_path):
    file = tmp_path / "own.txt"
    file.write_text(content)
    with refused(message):
        load_templates(str(file))


def test_names_the_nearest_template():
    with refused("phota: no such file; did you mean 'photo'"):
        load_templates("phota")


def test_byte_order_marks_and_windows_line_ends_are_no_part_of_a_template(tmp_path):
    file = tmp_path / "own.txt"
    for encoding in ("utf-8-sig", "utf-16", "utf-16-be"):
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        file.write_bytes(f"{mark}an icon of {{c}}\r\n{{c}}, drawn\r\n".encode(encoding))
        assert load_templates(str(file)) == ["an icon of {c}", "{c}, drawn"]
    file.write_bytes("a caf\xe9 of {c}\n".encode("latin-1"))
    with refused(r"own\.txt: not readable as text: byte 0xe9 on line 1 is not UTF-8"):
        load_templates(str(file))


def test_a_folder_named_after_a_split_takes_its_parents_name(tmp_path):
    assert dataset_name(tmp_path / "flickr8k" / "test") == "flickr8k_test"
    assert dataset_name(tmp_path / "cifar10") == "cifar10"
    assert dataset_name(Path("some/where/")) == "where"
