"""Make the pictures of the README and the thumbnails of the workflows, with the restorer that ships.

docs/before_after.jpg: a part of the sample, before, after and the original, enlarged without smoothing.
workflows/*.jpg: what each workflow does to a photo, by running it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import skimage
import torch
from kintsugi.core.folders import Folders
from kintsugi.core.methods.one_step import Generator, Tiling, restore
from kintsugi.core.runtime import LocalHost, using_host
from kintsugi.core.weights.generators import load_generator
from kintsugi.headless.changes import Changes, picture_inputs
from kintsugi.headless.run import WorkflowRunner, find_workflow
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "docs" / "sample"
PART = (130, 20, 370, 260)  # left, top, right, bottom: the face and the collar
FACE = (150, 20, 310, 190)  # an ellipse in this box is painted over the face
AROUND_FACE = (110, 0, 350, 240)
ENLARGED = 2
THUMBNAIL = 512
GAP, LABEL_HEIGHT = 6, 26
JPEG: dict[str, Any] = {"subsampling": "4:4:4", "optimize": True}
THUMBNAIL_QUALITY, LARGEST_THUMBNAIL = 82, 60_000
SMALL = "(small weights)"


def restored(generator: Generator, picture: Image.Image) -> Image.Image:
    """The picture at its own size, as `kintsugi restore` does it."""
    with torch.inference_mode():
        planes = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
        return to_image(restore(generator, planes, 1.0, 0, Tiling(), "wavelet"))


def to_image(picture: torch.Tensor) -> Image.Image:
    """IMAGE [1, H, W, 3] in 0..1."""
    return Image.fromarray((picture[0] * 255).round().to(torch.uint8).numpy())


def made_by(workflow: str, photo: Image.Image, *changes: str) -> list[Image.Image]:
    """What a workflow of the package saves of a photo with the weights that ship, in the order of its nodes; the photo is not
    looked at where it takes none. changes: NODE.input=value."""
    runner = WorkflowRunner(find_workflow(workflow), Changes(changes, embedded=True))
    loaders = picture_inputs(runner.prompt, runner.registry)
    with TemporaryDirectory() as folder:
        photo.save(Path(folder, "photo.png"))
        result = runner.run({loader: Path(folder, "photo.png") for loader in loaders}, Folders(output=Path(folder, "out")))
        return [Image.open(path).convert("RGB") for path in result.files]


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


def strips(pictures: Sequence[Image.Image], caption: str = "") -> Image.Image:
    """One square picture whose upright strips show the given ones, a white line between them and a caption below."""
    squares = [square(picture) for picture in pictures]
    joined = squares[0].copy()
    draw = ImageDraw.Draw(joined)
    for index, picture in enumerate(squares[1:], 1):
        left = index * THUMBNAIL // len(squares)
        joined.paste(picture.crop((left, 0, THUMBNAIL, THUMBNAIL)), (left, 0))
        draw.line((left, 0, left, THUMBNAIL), fill="white", width=3)
    if caption:
        draw.rectangle((0, THUMBNAIL - LABEL_HEIGHT, THUMBNAIL, THUMBNAIL), fill="black")
        font = ImageFont.load_default(17)
        draw.text((THUMBNAIL / 2, THUMBNAIL - LABEL_HEIGHT / 2), caption, fill="white", font=font, anchor="mm")
    return joined


def square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)


def before_and_after(damaged: Image.Image, clean: Image.Image) -> Image.Image:
    """The picture of the README."""
    after = restored(load_generator("gendr", "embedded"), damaged)
    size = ((PART[2] - PART[0]) * ENLARGED, (PART[3] - PART[1]) * ENLARGED)
    parts = [picture.crop(PART).resize(size, Image.Resampling.NEAREST) for picture in (damaged, after, clean)]
    return labelled_row(parts, ("damaged", "restored", "original"))


def painted(photo: Image.Image) -> Image.Image:
    """The photo as the mask editor stores it: what is painted is transparent."""
    alpha = Image.new("L", photo.size, 255)
    ImageDraw.Draw(alpha).ellipse(FACE, fill=0)
    result = photo.copy()
    result.putalpha(alpha)
    return result


def thumbnails(damaged: Image.Image, clean: Image.Image) -> dict[str, Image.Image]:
    """By workflow, with the weights that ship; a caption says that they are small."""
    coffee = Image.open(Path(skimage.__file__).parent / "data" / "coffee.png").convert("RGB")
    [pair] = made_by("degrade_and_score", coffee)
    worse, better = (pair.crop((left, 0, left + coffee.width, coffee.height)) for left in (0, coffee.width))
    small = clean.resize((THUMBNAIL // 4, THUMBNAIL // 4), Image.Resampling.BICUBIC)
    pixels = small.resize(clean.size, Image.Resampling.NEAREST)
    face = damaged.crop(PART).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC)
    compared = made_by("compare_one_step", damaged)
    portrait = damaged.crop(PART)
    _, sheet = made_by("instantir_previews", portrait)
    faces = made_by("restore_faces", painted(damaged))[0]
    pairs = made_by("fluxgen_dataset", portrait, "Draw.width=128", "Draw.height=128")
    previews = sheet.crop((0, 0, sheet.width // 3, sheet.width // 3))
    return {
        "restore_photo": strips([damaged, *made_by("restore_photo", damaged)]),
        "degrade_and_score": strips([coffee, worse, better]),
        "tsd_sr": strips([pixels, *made_by("tsd_sr", small)], "TSD-SR, 4 times larger (small weights)"),
        "gendr": strips([pixels, *made_by("gendr", small)], f"GenDR, 4 times larger {SMALL}"),
        "instarevive_photo": strips([damaged, *made_by("instarevive_photo", damaged)], "InstaRevive, photo (small weights)"),
        "instarevive_face": strips([face, *made_by("instarevive_face", face)], "InstaRevive, portrait (small weights)"),
        "instarevive_cartoon": strips([face, *made_by("instarevive_cartoon", face)], "InstaRevive, cartoon (small weights)"),
        "restore_faces": strips([damaged.crop(AROUND_FACE), faces.crop(AROUND_FACE)], "only the painted face (small weights)"),
        "instantir": strips([portrait, *made_by("instantir", portrait)], f"InstantIR {SMALL}"),
        "instantir_creative": strips([portrait, *made_by("instantir_creative", portrait)], f"InstantIR, creative {SMALL}"),
        "instantir_previews": strips([portrait, previews], f"InstantIR, previews over time {SMALL}"),
        "fluxir": strips([damaged, *made_by("fluxir", damaged)], f"FluxIR {SMALL}"),
        "fluxgen_dataset": strips(pairs[:: len(pairs) // 2], f"FluxGen: pairs to train on {SMALL}"),
        "compare_one_step": strips([damaged, *compared[::2]], "photo, TSD-SR, GenDR, InstaRevive"),
    }


def write_thumbnail(picture: Image.Image, path: Path) -> None:
    """As good as fits the size: grain takes many bytes."""
    for quality in range(THUMBNAIL_QUALITY, 0, -4):
        picture.save(path, quality=quality, **JPEG)
        if path.stat().st_size <= LARGEST_THUMBNAIL:
            return


def main() -> None:
    clean, damaged = (Image.open(SAMPLE / name).convert("RGB") for name in ("clean.png", "sample.jpg"))
    with using_host(LocalHost(torch.device("cpu"))):
        before_and_after(damaged, clean).save(ROOT / "docs" / "before_after.jpg", quality=90, **JPEG)
        for name, picture in thumbnails(damaged, clean).items():
            write_thumbnail(picture, ROOT / "workflows" / f"{name}.jpg")


if __name__ == "__main__":
    main()
