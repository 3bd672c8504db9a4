"""Fill in the report's templates: one self-contained page of bounded size, in which every text is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bimodal_cl import __version__
from bimodal_cl.cli.progress import note

MOST_BYTES = 9_500_000
_TEMPLATES = Path(__file__).parent / "templates"
_SIDES = (176, 112, 72)  # pixels of a thumbnail's longer side; 176 is sharp at 88 CSS pixels on a dense display


def fill_in(template: str, content: Callable[[int], Mapping[str, Any]]) -> str:
    """Return the page; where it would be larger than ``MOST_BYTES``, its pictures become smaller.

    A page that is still larger is noted on the terminal.

    Args:
        template: name of the template.
        content: returns what it shows, for the size of thumbnails in pixels.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(thousands=lambda value: f"{value:,}", tau=lambda value: f"{value:.4g}")
    page = ""
    for side in _SIDES:
        page = environment.get_template(template).render(version=__version__, **content(side))
        if len(page.encode()) <= MOST_BYTES:
            return page
    note(f"the page has {len(page.encode()) / 1e6:.1f} MB; give fewer rows or data sets for a smaller one")
    return page
