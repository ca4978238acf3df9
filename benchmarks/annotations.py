"""How long it takes to read 10,000 COCO annotations: to open the file, and to draw every label map.

    python -m benchmarks.annotations

Pictures have 480 x 640 pixels and seven annotations each, outlines of 20 to 60 points and, every tenth, run lengths.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from segmenter.config import Data
from segmenter.data.layouts import open_labels

COUNT, EACH, SIZE = 10_000, 7, (480, 640)


def write(root: Path) -> None:
    """Writes the pictures, which are all alike, and instances.json."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    Image.new("RGB", SIZE[::-1]).save(root / "0.jpg")
    for number in range(-(-COUNT // EACH)):
        if number:
            (root / f"{number}.jpg").hardlink_to(root / "0.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]})
        for _ in range(min(EACH, COUNT - len(annotations))):
            corners = generator.integers(20, 60)
            angles, radius = np.sort(generator.uniform(0, 2 * np.pi, corners)), generator.uniform(20, 120, corners)
            ring = np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None]
            ring = (ring + generator.uniform(0, 1, 2) * SIZE[::-1]).clip(0, SIZE[::-1]).round(2)
            found: object = [ring.ravel().tolist()]
            if len(annotations) % 10 == 0:
                packed = coco.frPyObjects(found, *SIZE)[0]
                found = {"size": list(SIZE), "counts": packed["counts"].decode()}
            entry = {"id": len(annotations), "image_id": number, "category_id": int(generator.integers(1, 81))}
            annotations.append(entry | {"segmentation": found, "iscrowd": 0})
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(content))


def main() -> None:
    """Prints the seconds of a core."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        start = time.process_time()
        data = open_labels(Data(folder))
        opened = time.process_time()
        for split in data.splits.values():
            for sample in split:
                sample.target()
        drawn = time.process_time()
        print(f"{data.source}\nopened in {opened - start:.1f} s, drawn in {drawn - opened:.1f} s of a core")


if __name__ == "__main__":
    main()
