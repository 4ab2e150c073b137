"""Make the pictures of the README and the thumbnails of the workflows, with the restorer that ships.

docs/before_after.jpg: a part of the sample, before, after and the original, enlarged without smoothing.
workflows/*.jpg: what each workflow does to a photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage
import torch
from kintsugi.core.degradation.pipeline import degrade
from kintsugi.core.methods.one_step import Generator, Tiling, restore
from kintsugi.core.weights.generators import load_generator
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "docs" / "sample"
PART = (130, 20, 370, 260)  # left, top, right, bottom: the face and the collar
ENLARGED = 2
THUMBNAIL = 512
GAP, LABEL_HEIGHT = 6, 26
JPEG = {"quality": 90, "subsampling": "4:4:4", "optimize": True}


def restored(generator: Generator, picture: Image.Image) -> Image.Image:
    """The picture at its own size, as `kintsugi restore` does it."""
    with torch.inference_mode():
        planes = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
        return to_image(restore(generator, planes, 1.0, 0, Tiling(), "wavelet"))


def to_image(picture: torch.Tensor) -> Image.Image:
    """IMAGE [1, H, W, 3] in 0..1."""
    return Image.fromarray((picture[0] * 255).round().to(torch.uint8).numpy())


def degraded_mildly(picture: Image.Image) -> Image.Image:
    """What workflows/degrade_and_score.json makes of a photo."""
    planes = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None].movedim(3, 1)
    return to_image(degrade(planes, "mild", scale=1, seed=4).low_quality.movedim(1, 3))


def labelled_row(pictures: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """Pictures of equal size side by side on white, a word above each."""
    width, height = pictures[0].size
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height + LABEL_HEIGHT), "white")
    draw = ImageDraw.Draw(row)
    font = ImageFont.load_default(17)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = index * (width + GAP)
        row.paste(picture, (left, LABEL_HEIGHT))
        draw.text((left + width / 2, LABEL_HEIGHT / 2), label, fill="black", font=font, anchor="mm")
    return row


def strips(pictures: Sequence[Image.Image]) -> Image.Image:
    """One square picture whose upright strips show the given ones, a white line between them."""
    squares = [square(picture) for picture in pictures]
    joined = squares[0].copy()
    draw = ImageDraw.Draw(joined)
    for index, picture in enumerate(squares[1:], 1):
        left = index * THUMBNAIL // len(squares)
        joined.paste(picture.crop((left, 0, THUMBNAIL, THUMBNAIL)), (left, 0))
        draw.line((left, 0, left, THUMBNAIL), fill="white", width=3)
    return joined


def square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)


def main() -> None:
    generator = load_generator("gendr", "embedded")
    clean, damaged = (Image.open(SAMPLE / name).convert("RGB") for name in ("clean.png", "sample.jpg"))
    after = restored(generator, damaged)
    size = ((PART[2] - PART[0]) * ENLARGED, (PART[3] - PART[1]) * ENLARGED)
    parts = [picture.crop(PART).resize(size, Image.Resampling.NEAREST) for picture in (damaged, after, clean)]
    labelled_row(parts, ("damaged", "restored", "original")).save(ROOT / "docs" / "before_after.jpg", **JPEG)

    strips([damaged, after]).save(ROOT / "workflows" / "restore_photo.jpg", **JPEG)
    coffee = Image.open(Path(skimage.__file__).parent / "data" / "coffee.png").convert("RGB")
    worse = degraded_mildly(coffee)
    strips([coffee, worse, restored(generator, worse)]).save(ROOT / "workflows" / "degrade_and_score.jpg", **JPEG)


if __name__ == "__main__":
    main()
