"""Colours for classes that state none: any number of them, always the same, easy to tell apart.

OKLab: Bjoern Ottosson, "A perceptual color space for image processing", 2020.
"""

import numpy as np


def default_colors(n: int) -> tuple[tuple[int, int, int], ...]:
    """`n` distinct colours, each as far as possible from those before it and from black and white.

    Greedy farthest points of a colour lattice in OKLab, where distance is close to what the eye sees.
    """
    steps = max(12, int(np.ceil((2 * n) ** (1 / 3))))
    levels = np.linspace(0, 255, steps).round()
    lattice = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)  # L 3
    linear = np.where(lattice <= 10.31, lattice / 3294.6, ((lattice / 255 + 0.055) / 1.055) ** 2.4)
    cone = linear @ np.array([
        [0.4122214708, 0.2119034982, 0.0883024619],
        [0.5363325363, 0.6806995451, 0.2817188376],
        [0.0514459929, 0.1073969566, 0.6299787005],
    ])  # fmt: skip
    lab = np.cbrt(cone) @ np.array([
        [0.2104542553, 1.9779984951, 0.0259040371],
        [0.7936177850, -2.4285922050, 0.7827717662],
        [-0.0040720468, 0.4505937099, -0.8086757660],
    ])  # fmt: skip
    distance = np.minimum(np.square(lab - lab[0]).sum(1), np.square(lab - lab[-1]).sum(1))
    distance[lab[:, 0] < 0.4] = -1.0  # dark colours are far apart in OKLab, but look alike on a screen
    chosen = []
    for _ in range(n):
        best = int(distance.argmax())
        chosen.append(tuple(int(c) for c in lattice[best]))
        distance = np.minimum(distance, np.square(lab - lab[best]).sum(1))
    return tuple(chosen)
