"""A tiny COCO on disk: coloured rectangles and discs on a dim ground, with outlines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

CATEGORIES = ({"id": 3, "name": "red box"}, {"id": 7, "name": "green box"})
COLOURS = {3: (230, 40, 40), 7: (40, 210, 60)}


def write_coco(root: Path, images: int = 4, *, side: int = 128, objects: int = 2) -> Path:
    """Write train2017/ and val2017/ with the same images, and their instances."""
    random = np.random.default_rng(0)
    pictures, entries = [], []
    for number in range(images):
        pixels = np.full((side, side + 32, 3), 90, dtype=np.uint8)
        pixels += random.integers(0, 30, pixels.shape, dtype=np.uint8)
        for place in range(objects):
            category = CATEGORIES[(number + place) % 2]["id"]
            width, height = (int(value) for value in random.integers(side // 4, side // 2.5, 2))
            left = int(random.integers(0, side // 2 - width + 1)) + place * (side // 2 + 16)
            top = int(random.integers(0, side - height))
            pixels[top : top + height, left : left + width] = COLOURS[int(category)]
            right, bottom = left + width, top + height
            entries.append(
                {
                    "id": len(entries) + 1,
                    "image_id": 10 + number,
                    "category_id": category,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                }
            )
        name = f"{number:012d}.png"
        pictures.append({"id": 10 + number, "file_name": name, "height": side, "width": side + 32})
        for part in ("train", "val"):
            (root / f"{part}2017").mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(pixels).save(root / f"{part}2017" / name)
    tree: dict[str, Any] = {"info": {}, "categories": CATEGORIES, "images": pictures, "annotations": entries}
    (root / "annotations").mkdir()
    for part in ("train", "val"):
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(tree))
    return root
