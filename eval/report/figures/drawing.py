"""A figure that can be painted in several looks: inline SVG for the page, PNG and SVG files for papers."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bimodal_cl.files.atomic import open_atomically

from .look import PAGE, PAPER, VARIABLES, Look

_DOTS_PER_INCH = 300


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Attributes:
        name: unique in the page; the SVG's ids and the names of files begin with it.
        label: what it shows, in words, for those who cannot see it.
        paint: draws it into an empty figure.
        height: inches, on a page of 5 inches.
    """

    name: str
    label: str
    paint: Callable[[Figure, Look], None]
    height: float = 2.75

    def inline(self) -> Markup:
        """Return an ``<svg>`` that can share a page with others: unique ids, no size, the page's colours."""
        body = self._svg(PAGE)
        body = body[body.index("<svg") :]
        body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
        head, _, body = body.partition(">")
        view = re.search(r'viewBox="[^"]*"', head)
        assert view is not None, "matplotlib's SVG has no viewBox"
        body = re.sub(r'\bid="', f'id="{self.name}-', body).replace("url(#", f"url(#{self.name}-")
        body = body.replace('xlink:href="#', f'href="#{self.name}-').replace("xlink:href=", "href=")
        for color, variable in VARIABLES.items():
            body = body.replace(color, f"var({variable})")
        # Every text in it was escaped by matplotlib's XML writer, so the whole is markup.
        return Markup(f'<svg {view.group()} role="img" aria-label="{Markup.escape(self.label)}">{body}')

    def save(self, folder: Path) -> list[Path]:
        """Write ``NAME.png`` and ``NAME.svg`` for a column of a paper, each whole or not at all.

        Raises:
            OSError: a file cannot be written.
        """
        paths = [folder / f"{self.name}.png", folder / f"{self.name}.svg"]
        with rc_context(PAPER.style()):
            figure = self._painted(PAPER)
            stream = io.BytesIO()
            figure.savefig(stream, format="png", dpi=_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})
        for path, content in zip(paths, (stream.getvalue(), self._svg(PAPER).encode()), strict=True):
            with open_atomically(path) as file:
                file.write(content)
        return paths

    def _svg(self, look: Look) -> str:
        with rc_context({**look.style(), "svg.hashsalt": self.name}):
            stream = io.StringIO()
            FigureCanvasSVG(self._painted(look)).print_svg(stream, metadata={"Date": None})
        return stream.getvalue()

    def _painted(self, look: Look) -> Figure:
        figure = Figure(figsize=(look.width, self.height * look.stretch), layout="constrained")
        FigureCanvasAgg(figure)
        figure.patch.set_alpha(0)
        self.paint(figure, look)
        return figure


def add_axes(figure: Figure) -> Axes:
    """Return the figure's only axes, transparent."""
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return axes


def add_legend(axes: Axes, look: Look, labels: Sequence[str], **more: float) -> None:
    """Put a legend above the axes, in as many columns as the labels leave room for."""
    letters = look.width * 72 / (0.55 * look.font)
    columns = int(letters // (max(map(len, labels)) + 9))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.03), ncols=max(1, min(len(labels), columns)), **more)


def is_geometric(edges: np.ndarray) -> bool:
    """Return whether bin edges are those of a logarithmic axis."""
    return bool(edges[0] > 0 and np.allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0])))


def use_decades(axes: Axes, which: str) -> None:
    """Make an axis, ``"x"`` or ``"y"``, logarithmic with plain numbers."""
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
