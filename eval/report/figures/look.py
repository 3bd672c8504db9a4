"""How figures look: on the page, where colours are its CSS variables, and in a column of a paper.

Images are always drawn in one colour and texts in another, and so is each row of a comparison: the colours are those of
Okabe and Ito, which colour-blind readers tell apart, and lines and points also differ by a dash pattern or a marker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INK, MUTED, GRID, IMAGE, TEXT = "ink", "muted", "grid", "image", "text"
_OF_ROWS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b87a00", "#56b4e9", "#5b6570", "#1b1f24")
ROWS = tuple(f"row{number}" for number in range(len(_OF_ROWS)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# One fewer than colours and markers, so that the ninth row does not look like the first.
DASHES: tuple[Any, ...] = (
    "-",
    "--",
    ":",
    "-.",
    (0, (5, 1)),
    (0, (1, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
)


@dataclass(frozen=True)
class Look:
    """Colours, size and type of a figure.

    Attributes:
        colors: by name.
        width: inches.
        stretch: height of a figure over its height on the page.
        font: points.
        svg_fonttype: ``none``: text stays text; ``path``: glyphs are drawn, so that no font is needed to read it.
    """

    colors: Mapping[str, str]
    width: float
    stretch: float
    font: float
    svg_fonttype: str

    def color(self, name: str) -> str:
        """Return a colour by its name."""
        return self.colors[name]

    def style(self) -> dict[str, Any]:
        """Return matplotlib's settings."""
        ink, muted, grid = (self.colors[name] for name in (INK, MUTED, GRID))
        return {
            "svg.fonttype": self.svg_fonttype,
            "font.size": self.font,
            "text.parse_math": False,
            "text.color": ink,
            "axes.labelcolor": muted,
            "axes.labelsize": self.font,
            "axes.titlesize": self.font,
            "axes.edgecolor": grid,
            "axes.linewidth": 0.8,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "grid.color": grid,
            "grid.linewidth": 0.7,
            "xtick.color": muted,
            "ytick.color": muted,
            "xtick.labelsize": self.font,
            "ytick.labelsize": self.font,
            "xtick.major.size": 3,
            "xtick.minor.size": 0,
            "ytick.major.size": 0,
            "ytick.minor.size": 0,
            "lines.linewidth": 1.7,
            "lines.solid_capstyle": "round",
            "legend.frameon": False,
            "legend.fontsize": self.font - 0.5,
            "legend.handlelength": 2.8,
            "legend.columnspacing": 1.2,
            "legend.borderpad": 0,
            "legend.borderaxespad": 0,
        }


# Colours that nothing else uses; the page turns them into its CSS variables.
_PLACES = {name: f"#0101{number:02x}" for number, name in enumerate((INK, MUTED, GRID, IMAGE, TEXT, *ROWS), start=1)}
VARIABLES = {place: f"--{name}" for name, place in _PLACES.items()}
_PRINT = {INK: "#1b1f24", MUTED: "#3d454e", GRID: "#dfe3e8", IMAGE: "#0072b2", TEXT: "#c8500a"}

PAGE = Look(_PLACES, width=5.0, stretch=1.0, font=9, svg_fonttype="none")  # 360 units: a phone's width
PAPER = Look({**_PRINT, **dict(zip(ROWS, _OF_ROWS, strict=True))}, 3.35, 0.78, 7.5, svg_fonttype="path")  # 85 mm
