"""Flags that ``bimodal-prep concepts`` and ``bimodal-prep thin`` share: the shards, and what names their concepts."""

from __future__ import annotations

from pathlib import Path

from bimodal_cl.cli.parser import Parser

from ..arguments import add_storage_arguments

RULE = """A concept is the word that most of an image's captions have, dogs counted as dog; of several, the word that
is most frequent in all captions. A short English list leaves out words that do not name a thing. --field or --concepts
name the concepts otherwise."""


def add_concept_arguments(parser: Parser) -> None:
    """Add SHARDS, ``--field``, ``--concepts`` and the flags of remote shards."""
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder of shards with a manifest.json")
    rules = parser.add_mutually_exclusive_group()
    rules.add_argument(
        "--field",
        metavar="NAME",
        help="take the concept from this key of each sample's .json (a.b: the key b of the object a)",
    )
    rules.add_argument(
        "--concepts",
        type=Path,
        metavar="FILE",
        help="take the concepts from a CSV file with the columns concept, and image_id or key",
    )
    add_storage_arguments(parser)
