"""A page of sections, and the one HTML file that it becomes: style, script and pictures inside, nothing from outside.

Whatever stands in a block is text, which the template escapes; only drawings of ours (`Markup`) go in as they are. The
page forbids itself the network and every script but its own.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Text:
    """A paragraph; `quiet` where it only explains, `warning` where it says what to mend."""

    words: str
    tone: str = ""
    kind = "text"


@dataclass(frozen=True)
class Tile:
    """One number that counts, large, with what it is and how sure."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class Tiles:
    tiles: list[Tile]
    kind = "tiles"


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    sort: float | str | None = None
    """By what its column is sorted; None: by its text, an empty number last."""
    bar: tuple[float, float, float] | None = None
    """A share and the ends of its interval (0 to 1), drawn behind the number."""
    color: tuple[int, int, int] | None = None
    """Of a class, as a square before the text."""
    heat: float | None = None
    """0 to 1: how strongly it is tinted."""
    tone: str = ""
    """`good` or `bad`, where a number is."""
    note: str = ""
    """Small, below the text."""

    @property
    def key(self) -> float | str:
        return self.text if self.sort is None else self.sort


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    numeric: int = 1
    """From this column on, cells are numbers."""
    sortable: bool = True
    folded: bool = False
    """Shown when its title is clicked."""
    foot: list[Cell] = field(default_factory=list)
    """A last row, which stays last."""
    matrix: bool = False
    kind = "table"


@dataclass(frozen=True)
class Plot:
    title: str
    svg: Markup
    words: str
    """What it shows, for who cannot see it."""
    note: str = ""


@dataclass(frozen=True)
class Plots:
    plots: list[Plot]
    kind = "plots"


@dataclass(frozen=True)
class Layer:
    """One of several pictures of the same size that lie on each other."""

    title: str
    source: str
    """A data: address."""
    crisp: bool = False
    """Of labels: pixels are enlarged as squares."""


@dataclass(frozen=True)
class Chip:
    """A colour of a legend."""

    text: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Picture:
    name: str
    layers: list[Layer]
    size: tuple[int, int]
    """Height and width in pixels."""
    facts: str = ""
    legend: list[Chip] = field(default_factory=list)
    share: int = 50
    """Percent of the width that shows the first layer, until somebody moves the slider."""


@dataclass(frozen=True)
class Gallery:
    title: str
    pictures: list[Picture]
    note: str = ""
    kind = "gallery"


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    title: str
    rows: list[tuple[str, str]]
    kind = "facts"


@dataclass(frozen=True)
class Code:
    title: str
    text: str
    folded: bool = True
    kind = "code"


Block = Text | Tiles | Table | Plots | Gallery | Facts | Code


@dataclass(frozen=True)
class Section:
    title: str
    blocks: list[Block]
    run: str = ""
    """Of which of several runs it is."""


@dataclass(frozen=True)
class Page:
    title: str
    subtitle: str
    sections: list[Section]
    refresh: int = 0
    """Seconds after which a browser reads it again; 0: never."""


def _code(text: str) -> Markup:
    """A text whose parts between backticks are code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def render(page: Page) -> str:
    """The page as one HTML file."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = ((HERE / name).read_text(encoding="utf-8").strip() for name in ("style.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.filters["code"] = _code
    # The two files are ours; whatever comes from data is escaped.
    return environment.get_template("page.html").render(
        page=page, style=Markup(style), script=Markup(script), digest=digest
    )
