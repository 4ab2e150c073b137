"""A folder as people have them: many kinds of pictures, some of them broken, and a quick workflow that keeps what each file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kintsugi.core.imaging.photo import FileFormat, PhotoDetails
from kintsugi.core.imaging.writing import write_photo
from PIL import Image

ORIENTATION, TURNED = 0x0112, 6
SIZES = ((24, 16), (16, 24), (33, 17), (24, 16))

KEEPING: dict[str, Any] = {
    "1": {"class_type": "KintsugiLoadPhoto", "inputs": {"image": "any.png"}, "_meta": {"title": "Photo"}},
    "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "bilinear", "scale_by": 0.5}},
    "3": {
        "class_type": "KintsugiSavePhoto",
        "inputs": {
            "images": ["2", 0],
            "photo": ["1", 2],
            "mask": ["1", 1],
            "filename_prefix": "kept",
            "format": "same as source",
            "bit_depth": "same as source",
            "quality": 95,
            "keep_metadata": True,
        },
    },
    "4": {"class_type": "KintsugiMeasureQuality", "inputs": {"image": ["2", 0], "metrics": "colorfulness"}, "_meta": {"title": "Colour"}},
}


def write_mixed(folder: Path, count: int, broken: int) -> None:
    """So many pictures of eight kinds in three subfolders, the last `broken` of them no pictures."""
    for index in range(count - broken):
        write_kind(folder / ("", "a", "b/c")[index % 3] / f"scan{index}", index)
    for index in range(broken):
        path = folder / "broken" / f"scan{index}.{('png', 'jpg', 'tif', 'webp')[index % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = (folder / "scan0.png").read_bytes()
        path.write_bytes((b"", b"no picture", whole[: len(whole) // 2], whole[8:])[index // 3])


def write_kind(stem: Path, index: int) -> None:
    """RGB, grey, 16 bit, alpha and turned ones, each picture another."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(index)
    width, height = SIZES[index // 8 % len(SIZES)]
    samples = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    match index % 8:
        case 0:
            Image.fromarray(samples[..., :3]).save(stem.with_suffix(".png"))
        case 1:
            Image.fromarray(samples[..., :3]).save(stem.with_suffix(".jpg"))
        case 2:
            Image.fromarray(samples[..., 0]).save(stem.with_suffix(".png"))
        case 3:
            Image.fromarray(samples).save(stem.with_suffix(".png"))
        case 4:
            exif = Image.Exif()
            exif[ORIENTATION] = TURNED
            Image.fromarray(samples[..., :3]).save(stem.with_suffix(".jpg"), exif=exif)
        case 5:
            Image.fromarray(samples).save(stem.with_suffix(".webp"), lossless=True)
        case kind:
            deep: FileFormat = "png" if kind == 6 else "tiff"
            picture = torch.from_numpy(random.random((height, width, 3), dtype=np.float32))
            write_photo(stem.with_suffix(f".{deep}"), picture, details=PhotoDetails(format=deep, bit_depth=16))


def write_keeping(folder: Path) -> Path:
    path = folder / "keeping.json"
    path.write_text(json.dumps(KEEPING))
    return path
