"""Sheets: pictures in rows and columns with captions, under a title, a few words and the colours' scale."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from segmenter.views.lettering import fitted, font, wrapped

SHEET_WIDTH = 2000  # pixels that a sheet of many columns is about
CELL_WIDTHS = (150, 440)
CELL_PIXELS = 2**18  # at most, so that tall windows do not make a sheet endless
LETTERS = 15
GAP = 6


@dataclass(frozen=True)
class Cell:
    """A picture and the words below it."""

    picture: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class Sheet:
    """All that is on a sheet."""

    title: str
    words: str
    """How to read it."""
    columns: Sequence[str]
    """Captions of the columns."""
    rows: Sequence[tuple[str, Sequence[Cell | None]]]
    """Caption and cells of each row; None leaves a place empty."""
    bar: Image.Image | None = None
    """The scale of the colours."""


def cell_size(columns: int, shape: tuple[float, float]) -> tuple[int, int]:
    """Width and height of cells in so many columns for pictures of this shape (height, width), which they keep."""
    least, most = CELL_WIDTHS
    width = min(max(SHEET_WIDTH // max(columns, 1), least), most)
    aspect = shape[0] / shape[1]
    width = max(1, round(min(width, (CELL_PIXELS / aspect) ** 0.5)))
    return width, max(1, round(width * aspect))


def draw_sheet(sheet: Sheet) -> Image.Image:
    """The picture of a sheet."""
    letters, bold, small = font(LETTERS), font(LETTERS + 5, bold=True), font(LETTERS - 3)
    cells = [cell for _, row in sheet.rows for cell in row if cell is not None]
    width, height = (max(side) for side in zip(*(cell.picture.size for cell in cells), strict=True))
    caption = LETTERS + 4 if any(cell.caption for cell in cells) else 0
    left = 2 * GAP + round(max(letters.getlength(name) for name, _ in sheet.rows))
    bar = sheet.bar.width + 2 * GAP if sheet.bar else 0
    whole = max(left + len(sheet.columns) * (width + GAP) + GAP, 700)
    title = wrapped(sheet.title, bold, whole - bar - 2 * GAP)
    words = wrapped(sheet.words, letters, whole - bar - 2 * GAP)
    line = round(LETTERS * 1.4)
    top = GAP + len(title) * (line + 5) + len(words) * line + GAP
    top = max(top, sheet.bar.height + 2 * GAP if sheet.bar else 0)
    picture = Image.new("RGB", (whole, top + line + len(sheet.rows) * (height + caption + GAP) + GAP), "white")
    draw = ImageDraw.Draw(picture)
    for number, text in enumerate(title):
        draw.text((GAP, GAP + number * (line + 5)), text, fill="black", font=bold)
    for number, text in enumerate(words):
        draw.text((GAP, GAP + len(title) * (line + 5) + number * line), text, fill="#333333", font=letters)
    if sheet.bar:
        picture.paste(sheet.bar, (whole - sheet.bar.width - GAP, GAP + 2))
    for number, name in enumerate(sheet.columns):
        middle = left + number * (width + GAP) + width / 2
        draw.text((middle, top), fitted(name, letters, width), fill="black", font=letters, anchor="mt")
    for row, (name, found) in enumerate(sheet.rows):
        y = top + line + row * (height + caption + GAP)
        draw.text((GAP, y + height / 2), name, fill="black", font=letters, anchor="lm")
        for column, cell in enumerate(found):
            if cell is not None:
                x = left + column * (width + GAP)
                picture.paste(cell.picture, (x, y))
                text = fitted(cell.caption, small, width)
                draw.text((x + width / 2, y + height + 3), text, fill="#333333", font=small, anchor="mt")
    return picture
