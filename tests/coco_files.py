"""A tiny COCO and VOC on disk: coloured rectangles and discs on a dim ground, with outlines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import scipy.io

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


def write_voc(root: Path, images: int = 3) -> Path:
    """Write VOC2007's trainval and test, and VOC2012's trainval: a bright rectangle each, and a difficult one."""
    for year, parts in (("VOC2007", ("trainval", "test")), ("VOC2012", ("trainval",))):
        folder = root / "VOCdevkit" / year
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)
        for part in parts:
            names = [f"{part}_{number}" for number in range(images)]
            (folder / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
            for number, name in enumerate(names):
                pixels = np.full((80, 100, 3), 60, dtype=np.uint8)
                pixels[10:50, 20:70] = 60 * number + 70
                PIL.Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
                objects = "".join(
                    f"<object><name>{kind}</name><difficult>{hard}</difficult><bndbox><xmin>{left}</xmin>"
                    f"<ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
                    for kind, hard, left, top, right, bottom in (
                        (("cat", "dog")[number % 2], 0, 21, 11, 70, 50),
                        ("cat", 1, 1, 1, 10, 10),
                    )
                )
                (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def write_voc_pixels(root: Path, train: int = 3, test: int = 2, *, side: int = 64) -> Path:
    """Write VOC2012 with the classes of pixels, and SBD: a red aeroplane or a green dog on a dim ground, in a void rim.

    SBD's training images are those of VOC and, of its validation images, the first.
    """
    random = np.random.default_rng(0)
    voc, sbd = root / "VOCdevkit" / "VOC2012", root / "benchmark_RELEASE" / "dataset"
    for folder in (voc / "JPEGImages", voc / "SegmentationClass", voc / "ImageSets/Segmentation"):
        folder.mkdir(parents=True)
    for folder in (sbd / "img", sbd / "cls"):
        folder.mkdir(parents=True)
    parts = {"train": [f"train_{n}" for n in range(train)], "val": [f"val_{n}" for n in range(test)]}
    for part, names in parts.items():
        (voc / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
    palette = [int(value) for value in random.permutation(256 * 3) % 256]
    for number, name in enumerate(parts["train"] + parts["val"]):
        height, width = side + 5 * number, side + 16 - 3 * number
        pixels = np.full((height, width, 3), 60, dtype=np.uint8)
        classes = np.zeros((height, width), dtype=np.uint8)
        colour, label = (((230, 40, 40), 1), ((40, 210, 60), 12))[number % 2]
        top, left = (int(value) for value in random.integers(4, side // 3, 2))
        inside = np.s_[top : top + side // 2, left : left + side // 2]
        classes[top - 2 : top + side // 2 + 2, left - 2 : left + side // 2 + 2] = 255
        pixels[inside], classes[inside] = colour, label
        picture, numbers = PIL.Image.fromarray(pixels), PIL.Image.fromarray(classes)
        numbers.putpalette(palette)
        picture.save(voc / "JPEGImages" / f"{name}.jpg", quality=95)
        numbers.save(voc / "SegmentationClass" / f"{name}.png")
        picture.save(sbd / "img" / f"{name}.jpg", quality=95)
        # SBD has no void.
        content = {"Segmentation": np.where(classes == 255, 0, classes), "CategoriesPresent": np.array([label])}
        scipy.io.savemat(sbd / "cls" / f"{name}.mat", {"GTcls": content})
    (sbd / "train.txt").write_text("\n".join([*parts["train"], parts["val"][0]]) + "\n")
    return root
