"""The letters of captions and legends, and texts that fit."""

from functools import cache

from matplotlib import get_data_path
from PIL import ImageFont


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most languages."""
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' * bold}.ttf", size)


def fitted(text: str, letters: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, its end left out where it is wider than so many pixels."""
    if letters.getlength(text) <= width:
        return text
    while text and letters.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, letters: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The text in lines of at most so many pixels, where its words allow."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if letters.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fitted(line, letters, width) for line in lines if line]
