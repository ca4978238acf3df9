"""Sheets: pictures in rows and columns with captions, under a title, a few words, a small picture and a scale."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from segmenter.views.lettering import fitted, font, wrapped

SHEET_WIDTH = 1900  # pixels that a sheet of many columns is about
CELL_WIDTHS = (150, 380)
LARGEST_CELL = 380**2  # pixels, so that tall windows do not make a sheet endless
LETTERS = 18
GAP = 8
INSET = 220  # pixels that the small picture is high


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
    inset: Image.Image | None = None
    """A small picture beside the title."""


def cell_size(columns: int, shape: tuple[float, float], largest: int = LARGEST_CELL) -> tuple[int, int]:
    """Width and height of cells in so many columns for pictures of this shape (height, width), which they keep."""
    least, most = CELL_WIDTHS
    width = min(max(SHEET_WIDTH // max(columns, 1), least), most)
    aspect = shape[0] / shape[1]
    width = max(1, round(min(width, (largest / aspect) ** 0.5)))
    return width, max(1, round(width * aspect))


def draw_sheet(sheet: Sheet) -> Image.Image:
    """The picture of a sheet."""
    letters, small = font(LETTERS), font(LETTERS - 3)
    cells = [cell for _, row in sheet.rows for cell in row if cell is not None]
    width, height = (max(side) for side in zip(*(cell.picture.size for cell in cells), strict=True))
    caption = LETTERS + 4 if any(cell.caption for cell in cells) else 0
    left = 2 * GAP + round(max(letters.getlength(line) for name, _ in sheet.rows for line in name.split("\n")))
    whole = max(left + len(sheet.columns) * (width + GAP), 900)
    head = _head(sheet, whole)
    line = round(LETTERS * 1.5)
    bottom = head.height + line + len(sheet.rows) * (height + caption + GAP)
    picture = Image.new("RGB", (whole, bottom), "white")
    picture.paste(head)
    draw = ImageDraw.Draw(picture)
    for number, name in enumerate(sheet.columns):
        middle = left + number * (width + GAP) + width / 2
        draw.text((middle, head.height), fitted(name, letters, width), fill="black", font=letters, anchor="mt")
    for row, (name, found) in enumerate(sheet.rows):
        y = head.height + line + row * (height + caption + GAP)
        draw.multiline_text((GAP, y + height / 2), name, fill="black", font=letters, anchor="lm")
        for column, cell in enumerate(found):
            if cell is not None:
                x = left + column * (width + GAP)
                picture.paste(cell.picture, (x, y))
                text = fitted(cell.caption, small, width)
                draw.text((x + width / 2, y + height + 3), text, fill="#333333", font=small, anchor="mt")
    return picture


def _head(sheet: Sheet, width: int) -> Image.Image:
    """What stands above the rows: the small picture at the left, title, words and scale beside it."""
    letters, bold = font(LETTERS), font(LETTERS + 6, bold=True)
    inset = sheet.inset
    if inset is not None:
        scale = min(INSET / inset.height, width / 2 / inset.width)
        inset = inset.resize((round(inset.width * scale), round(inset.height * scale)), Image.Resampling.LANCZOS)
    left = GAP + (inset.width + 2 * GAP if inset else 0)
    title = wrapped(sheet.title, bold, width - left - GAP)
    words = wrapped(sheet.words, letters, width - left - GAP)
    line = round(LETTERS * 1.4)
    below = GAP + len(title) * (line + 8) + len(words) * line + GAP  # of the words
    height = max(below + (sheet.bar.height if sheet.bar else 0), inset.height + 2 * GAP if inset else 0) + GAP
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    if inset:
        picture.paste(inset, (GAP, GAP))
    for number, text in enumerate(title):
        draw.text((left, GAP + number * (line + 8)), text, fill="black", font=bold)
    for number, text in enumerate(words):
        draw.text((left, GAP + len(title) * (line + 8) + number * line), text, fill="#333333", font=letters)
    if sheet.bar:
        picture.paste(sheet.bar, (left, below))
    return picture
