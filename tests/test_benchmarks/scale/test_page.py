"""The tables of docs/scale.md are what the program computes."""

import re

import open_clip
import pytest
import torch

from tests.benchmarks.scale.budget import Run, Transfer, place_tables, table_bytes
from tests.benchmarks.scale.page import DIM, PAGE, PARAMETERS, TABLES, fill


def test_the_page_has_the_tables_as_computed():
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"<!-- scale: (\w+) -->", text) == list(TABLES)
    assert fill(text) == text  # otherwise: python -m tests.benchmarks.scale.page


def test_the_sizes_are_those_of_open_clip():
    config = open_clip.get_model_config("ViT-B-16")
    with torch.device("meta"):
        model = open_clip.CLIP(**config)
    assert sum(parameter.numel() for parameter in model.parameters()) - 1 == PARAMETERS
    assert config["embed_dim"] == DIM


@pytest.mark.parametrize(("kind", "received"), [("all_gather", 75), ("all_to_all", 75), ("all_reduce", 150)])
def test_rings(kind, received):
    assert Transfer("x", kind, 100).received(4) == received
    assert Transfer("x", kind, 100, times=2).received(1) == 0


def test_placement():
    run = Run("isogclr", 8, 64, 8, 0, 1000, 1000)
    assert table_bytes(run) == 24_000
    assert place_tables(run, memory=480_000) == run
    placed = place_tables(run, memory=479_999)
    assert placed.sharded_tables and not placed.table_on_cpu
    assert place_tables(run, memory=50_000).table_on_cpu
