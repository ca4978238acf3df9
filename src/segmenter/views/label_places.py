"""Places for the names of points on a plane: beside their points where there is room, and on top of nothing.

Greedy: the most crowded point chooses first, the nearest free place around it, away from its neighbours rather than
towards them. A name far from its point gets a line to it. Names never cover names or dots; that lines and names cross
is put up with only where the next better place is far.
"""

from dataclasses import dataclass

import numpy as np

DIRECTIONS = 24
NEIGHBOURS = 6  # from which a name turns away
BESIDE = 4.0  # between a dot and its name; farther away, a line joins them
PADDING = 1.0  # around each name
RING = 4.0  # between the distances that are tried
RINGS = 12  # tried at once
# Rings that a name goes farther out to cover none of what is spared, and so that no line and no name cross.
SPARING, CROSSING = 3, 10


@dataclass(frozen=True)
class Place:
    """Where a name stands: a box (left, bottom, right, top), and the line from its point, if any."""

    box: tuple[float, float, float, float]
    line: tuple[tuple[float, float], tuple[float, float]] | None


def places(
    points: np.ndarray, sizes: np.ndarray, area: tuple[float, float], dot: float, spared: np.ndarray
) -> list[Place | None]:
    """Places for names (K 2: width, height) of points (K 2: x, y) within an area (width, height); None: no room for it.

    No name covers another or a dot (of the radius `dot`); `spared` (M 2) are points that names rather do not cover.
    """
    apart = np.linalg.norm(points[:, None] - points, axis=-1)  # K K
    near = np.sort(apart, 1)[:, 1 : NEIGHBOURS + 1]
    order = np.argsort(near.mean(1), kind="stable") if near.size else np.arange(len(points))
    dots = np.concatenate([points - dot, points + dot], 1)  # K 4
    boxes, lines = np.empty((0, 4)), np.empty((0, 2))  # of the names that stand; points on their lines
    found: list[Place | None] = [None] * len(points)
    for i in order:
        towards = points[np.argsort(apart[i], kind="stable")[1 : NEIGHBOURS + 1]]
        away = points[i] - (towards.mean(0) if len(towards) else points[i])
        for first in range(0, int(max(area) / RING), RINGS):
            tried, anchors = _around(points[i], sizes[i], away, dot, range(first, first + RINGS))
            reach = sizes[i] + dot + BESIDE + (first + RINGS) * RING
            lines_near, spared_near = (some[(np.abs(some - points[i]) < reach).all(1)] for some in (lines, spared))
            free = (tried[:, :2] >= 0).all(1) & (tried[:, 2:] <= area).all(1)
            free[free] = ~_covers(tried[free], np.concatenate([boxes, dots])).any(1)
            if not free.any():
                continue
            tried, anchors, cost = tried[free], anchors[free], np.flatnonzero(free) / DIRECTIONS
            cost += SPARING * _holds(tried, spared_near).any(1) + CROSSING * _holds(tried, lines_near).any(1)
            joined = np.linalg.norm(anchors - points[i], axis=1) > dot + BESIDE + RING / 2
            ways = points[i] + np.linspace(0, 1, 16)[:, None, None] * (anchors - points[i])  # 16 M 2
            crossed = _holds(boxes, ways.reshape(-1, 2)).reshape(len(boxes), 16, len(anchors)).any(1)  # N M
            best = (cost + CROSSING * joined * crossed.sum(0)).argmin()
            boxes = np.concatenate([boxes, tried[best : best + 1]])
            line = None
            if joined[best]:
                lines = np.concatenate([lines, ways[:, best]])
                line = (tuple(points[i]), tuple(anchors[best]))
            found[i] = Place(tuple(tried[best].tolist()), line)
            break
    return found


def _around(
    point: np.ndarray, size: np.ndarray, away: np.ndarray, dot: float, rings: range
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (M 4) for a name around its point, the nearest first, and where a line would meet each (M 2)."""
    start = np.arctan2(away[1], away[0]) if np.any(away) else 0.0
    turns = np.arange(DIRECTIONS)
    turns = np.where(turns % 2, (turns + 1) // 2, -(turns // 2)) * (2 * np.pi / DIRECTIONS)  # both ways from the start
    angles = start + turns
    radii = dot + BESIDE + np.array(rings) * RING
    ways = np.stack([np.cos(angles), np.sin(angles)], -1)  # DIRECTIONS 2
    anchors = (point + radii[:, None, None] * ways).reshape(-1, 2)  # M 2
    # The line meets the side that faces the point: a name to the right begins there, one above is centred on it.
    left = anchors[:, 0] - np.tile((1 - ways[:, 0]) / 2, len(radii)) * size[0]
    bottom = anchors[:, 1] - np.tile((1 - ways[:, 1]) / 2, len(radii)) * size[1]
    boxes = np.stack([left, bottom, left + size[0], bottom + size[1]], -1)
    return boxes + np.array([-PADDING, -PADDING, PADDING, PADDING]), anchors


def _covers(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether boxes (M 4) overlap others (N 4): M N."""
    first, second = boxes[:, None], others[None]
    return ((first[..., :2] < second[..., 2:]) & (second[..., :2] < first[..., 2:])).all(-1)


def _holds(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether boxes (M 4) hold points (N 2): M N."""
    first, second = boxes[:, None], points[None]
    return ((first[..., :2] < second) & (second < first[..., 2:])).all(-1)
