"""Label maps with regions of many shapes and sizes, and brute-force answers about them, for tests."""

import numpy as np

OUTSIDE = -1


def patches(seed: int, size: tuple[int, int], classes: int, ignore: int = 255, cell: int = 5) -> np.ndarray:
    """Blobs of random classes with ragged edges, single pixels and ignored places (H W uint8)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, classes, (size[0] // cell + 1, size[1] // cell + 1))
    labels = np.kron(coarse, np.ones((cell, cell), int))[: size[0], : size[1]].astype(np.uint8)
    speckled = random.random(size) < 0.1
    labels[speckled] = random.integers(0, classes, int(speckled.sum()))
    labels[random.random(size) < 0.05] = ignore
    labels[: size[0] // 6, size[1] // 2 :] = ignore
    return labels


def flooded(labels: np.ndarray, instances: np.ndarray | None = None) -> np.ndarray:
    """Regions (H W) by filling from each pixel in turn over its eight neighbours; an instance is one region."""
    height, width = labels.shape
    found, named, count = np.full(labels.shape, -1), {}, 0
    for y, x in np.ndindex(height, width):
        instance = 0 if instances is None else int(instances[y, x])
        if instance > 0:
            key = (int(labels[y, x]), instance)
            if key not in named:
                named[key] = count
                count += 1
            found[y, x] = named[key]
            continue
        if found[y, x] >= 0:
            continue
        found[y, x], waiting = count, [(y, x)]
        while waiting:
            here = waiting.pop()
            for dy, dx in np.ndindex(3, 3):
                place = here[0] + dy - 1, here[1] + dx - 1
                if 0 <= place[0] < height and 0 <= place[1] < width and found[place] < 0:
                    free = instances is None or instances[place] <= 0
                    if free and labels[place] == labels[here]:
                        found[place] = count
                        waiting.append(place)
        count += 1
    return found
