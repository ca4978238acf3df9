"""Plots as SVG that take their colours and letters from the page, so that they are at home in light and dark.

matplotlib draws with colours that stand for the page's; they are replaced by CSS variables afterwards.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from markupsafe import Markup

SIZE = (4.4, 2.7)  # inches of 72 points; letters stay legible where a telephone shows it at three quarters
INK, MUTED, LINE = "#0a0b0c", "#1a1b1c", "#2a2b2c"
SERIES = ("#3a3b01", "#3a3b02", "#3a3b03", "#3a3b04", "#3a3b05", "#3a3b06")
VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line"} | {
    color: f"--series-{number}" for number, color in enumerate(SERIES, 1)
}
SETTINGS = {
    "svg.fonttype": "none",  # letters, which the page's style and a reader's search find
    "svg.hashsalt": "segmenter",  # the same names in every process
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_numbers = count(1)  # of plots, whose parts need names of their own on one page


def series(number: int) -> str:
    """The colour of a line among others, by its number from 0 on."""
    return SERIES[number % len(SERIES)]


class Drawing:
    """Axes to draw on, and the SVG that they become."""

    svg: Markup

    def __init__(self, size: tuple[float, float]):
        # pyplot keeps figures, and asks for a screen; Figure does neither.
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=size, layout="constrained")
        self.axes = self.figure.subplots()


@contextmanager
def drawing(size: tuple[float, float] = SIZE) -> Iterator[Drawing]:
    """`with drawing() as drawn:` draws on drawn.axes; afterwards drawn.svg is there."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        drawn = Drawing(size)
        yield drawn
        written = io.StringIO()
        drawn.figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    drawn.svg = _of_page(written.getvalue())


def _of_page(svg: str) -> Markup:
    """An SVG file as a part of a page: no prologue, names of its own, the page's colours and letters."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)  # it would hold for the whole page
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)  # a title or name, which stands in them as it is
    prefix = f"p{next(_numbers)}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r"font: [^;\"]*(px|pt) [^;\"]*", lambda font: _letters(font.group()), svg)
    svg = svg.replace("xlink:href", "href")
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    # Coordinates have six digits, a hundredth of a point is enough; what people read keeps its own.
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d+\.\d{2})\d+", r"\1", tag.group()), svg)
    return Markup(svg)


def _letters(font: str) -> str:
    """The size of a font alone, as the page knows its family."""
    size = re.search(r"([\d.]+)(px|pt)", font)
    return f"font-size: {size.group(1)}px" if size else font
