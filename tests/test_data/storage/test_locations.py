"""Locations: URLs, commands and paths are told apart, and consecutive numbers are joined."""

from __future__ import annotations

import pytest

from bimodal_cl.data.storage.locations import is_pipe, is_remote, join_locations
from data_prep.indexing.patterns import expand_locations


@pytest.mark.parametrize(
    ("numbers", "joined"),
    [
        (["0", "1", "2"], ["{0..2}"]),
        (["8", "9", "10", "11"], ["{8..11}"]),
        (["098", "099", "100"], ["{098..100}"]),
        (["00", "01", "1", "2", "03"], ["{1..2}", "{00..01}", "03"]),
        (["09", "10", "100"], ["{09..10}", "100"]),
        (["1", "3", "5"], ["1", "3", "5"]),
    ],
)
def test_joined_locations_are_the_same_shards(numbers: list[str], joined: list[str]) -> None:
    locations = [f"https://host8/a{number}-of.tar" for number in numbers] + ["s3://x/plain.tar"]
    patterns = join_locations(locations)
    assert patterns == [f"https://host8/a{pattern}-of.tar" for pattern in joined] + ["s3://x/plain.tar"]
    assert sorted(expand_locations(patterns)) == sorted(locations)


@pytest.mark.parametrize(
    ("location", "remote"),
    [
        ("https://host/a.tar", True),
        ("s3://bucket/a.tar", True),
        ("hf://datasets/x/y/a.tar", True),
        ("memory://a.tar", True),
        ("simplecache::s3://bucket/a.tar", True),
        ("pipe:curl -s https://host/a.tar", True),
        ("PIPE:ls", True),
        ("/data/a.tar", False),
        ("data/a.tar", False),
        ("C:/data/a.tar", False),
        ("/data/s3://odd/a.tar", False),
    ],
)
def test_what_is_remote(location: str, remote: bool) -> None:
    assert is_remote(location) is remote
    assert is_pipe(location) is location.lower().startswith("pipe:")
