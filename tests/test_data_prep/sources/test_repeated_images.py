"""Rows of one image become one item with all their captions."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from data_prep.items import BadItem, Item
from data_prep.sources.repeated_images import JOINED, join_files, join_neighbours


def test_neighbours_with_equal_bytes_are_joined_in_order():
    counts = Counter()
    rows = [Item("0", b"red", ("a",)), Item("1", b"red", ("b", "c")), Item("2", b"blue", ("d",))]
    assert list(join_neighbours(rows, counts)) == [Item("0", b"red", ("a", "b", "c")), Item("2", b"blue", ("d",))]
    assert counts == {JOINED: 1}


def test_equal_images_that_are_no_neighbours_stay_apart_in_a_stream():
    rows = [Item("0", b"red", ("a",)), Item("1", b"blue", ("b",)), Item("2", b"red", ("c",))]
    assert list(join_neighbours(rows, Counter())) == rows


def test_a_bad_row_stays_where_it_was():
    bad = BadItem("row 1", "no image")
    rows = [Item("0", b"red", ("a",)), bad, Item("2", b"red", ("c",))]
    assert list(join_neighbours(rows, Counter())) == rows
    assert list(join_neighbours([bad], Counter())) == [bad]


def test_members_of_an_archive_are_told_apart_by_their_location():
    rows = [Item(str(n), partial(bytes, location), (str(n),)) for n, location in enumerate((b"x", b"x", b"y"))]
    assert [item.captions for item in join_neighbours(rows, Counter())] == [("0", "1"), ("2",)]


def test_files_are_joined_wherever_they_stand():
    counts = Counter()
    bad = BadItem("row 1", "no image")
    rows = [Item("0", Path("a.jpg"), ("a",)), bad, Item("2", Path("b.jpg"), ("b",)), Item("3", Path("a.jpg"), ("c",))]
    assert list(join_files(rows, counts)) == [
        Item("0", Path("a.jpg"), ("a", "c")),
        bad,
        Item("2", Path("b.jpg"), ("b",)),
    ]
    assert counts == {JOINED: 1}
