"""Class embeddings as a map: the two axes on which the classes differ most, a dot and a name a class, alike ones near.

Source: Segmenter, arXiv 2105.05633, appendix (class embeddings by singular values). Two axes show a part of the
differences only, which is written at them; so a line joins each class and the one nearest to it on all axes.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segmenter.inspection.class_embeddings import ClassEmbeddings
from segmenter.views.label_places import Place, places
from segmenter.views.labels import short_name
from segmenter.views.lettering import fitted, font, wrapped

QUIET = "#666666"
EXPLAINED = "Vectors at length 1, around their mean. Grey lines: each class and the one nearest to it by cosine."
LETTERS = 8.5  # points
LONGEST_NAME = 24
DOT = 4.0  # radius
MARGIN = 40.0
SIDE, ROOM = 290.0, 5.0  # of a map, and more for every class
MOST = 400  # classes that the map grows for


def class_figure(found: list[ClassEmbeddings], title: str) -> Figure:
    """Draws a map of each of the embeddings, side by side; `title` names the model."""
    side = SIDE + ROOM * min(len(found[0].names), MOST)
    laid = [_laid_out(one, side) for one in found]
    between, line = 18.0, 13.0
    width = len(found) * side + (len(found) + 1) * between
    missing = max(stands.count(None) for _, stands in laid)
    text = EXPLAINED + f" {missing} classes have no room for their names." * bool(missing)
    below = wrapped(text, font(85), 10 * (width - 2 * between))
    head, foot = 74.0, 34.0 + line * len(below)
    height = head + side + foot
    figure = Figure(figsize=(width / 72, height / 72))
    title = fitted(title, font(95), 10 * (width - 2 * between))
    texts = [(height - 20, "Which classes are alike", {"fontsize": 13, "fontweight": "bold"})]
    texts += [(height - 40, title, {"fontsize": 9.5, "color": QUIET})]
    texts += [(line * (len(below) - i), words, {"fontsize": 8.5, "color": QUIET}) for i, words in enumerate(below)]
    for up, words, style in texts:
        figure.text(between / width, up / height, words, va="center", parse_math=False, **style)
    for number, (one, (points, stands)) in enumerate(zip(found, laid, strict=True)):
        left = between + number * (side + between)
        axes = figure.add_axes((left / width, foot / height, side / width, side / height))
        _draw(axes, one, side, points, stands)
    return figure


def _laid_out(found: ClassEmbeddings, side: float) -> tuple[np.ndarray, list[Place | None]]:
    """The points (K 2) of a map of this side, and the places of their names."""
    # All as high as letters that reach up and down, so that lines of text never touch.
    sizes = [(font(100).getlength(short_name(name, LONGEST_NAME)) / 100 * LETTERS, LETTERS) for name in found.names]
    low, spread = found.points.min(0), np.ptp(found.points, axis=0)
    # One scale for both axes: distances on the map can be compared in all directions.
    scale = (side - 2 * MARGIN) / max(spread.max(), 1e-12)
    points = (found.points - low - spread / 2) * scale + side / 2  # in points of 1/72 inch
    pairs = [points[[i, nearest]] for i, ((nearest, _),) in enumerate(found.nearest(1))]  # K of 2 2
    lines = np.concatenate([np.linspace(*pair, max(2, int(np.ptp(pair, 0).max() / 3))) for pair in pairs])
    return points, places(points, np.array(sizes), (side, side), DOT, lines)


def _draw(axes: Axes, found: ClassEmbeddings, side: float, points: np.ndarray, stands: list[Place | None]) -> None:
    axes.set(xlim=(0, side), ylim=(0, side), xticks=[], yticks=[])
    axes.spines[:].set_color("#cccccc")
    axes.set_title(found.title, loc="left", fontsize=9.5, color=QUIET)
    axes.set_xlabel(f"axis 1: {100 * found.shares[0]:.0f} % of the variance", fontsize=9, color=QUIET)
    axes.set_ylabel(f"axis 2: {100 * found.shares[1]:.0f} %", fontsize=9, color=QUIET, labelpad=2)
    for i, ((nearest, _),) in enumerate(found.nearest(1)):
        axes.plot(*points[[i, nearest]].T, color="#d9d9d9", linewidth=1, zorder=0)
    for place, name in zip(stands, found.names, strict=True):
        if place is None:
            continue
        if place.line:
            axes.plot(*np.transpose(place.line), color=QUIET, linewidth=0.5, zorder=1)
        left, bottom, right, top = place.box
        axes.text(
            (left + right) / 2,
            (bottom + top) / 2,
            short_name(name, LONGEST_NAME),
            fontsize=LETTERS,
            ha="center",
            va="center_baseline",
            parse_math=False,
            zorder=3,
        )
    colors = np.array(found.colors) / 255
    axes.scatter(*points.T, s=(2 * DOT) ** 2, c=colors, edgecolors="#333333", linewidths=0.6, zorder=2)
