"""Pillow's pictures in memory give what the same pictures give as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kintsugi.core.errors import PictureError
from kintsugi.core.imaging.photo import Photo
from kintsugi.core.imaging.pillow import photo_of, pillow_of
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.imaging.writing import write_photo
from PIL import Image, ImageCms


def drawn(mode: str) -> Image.Image:
    samples = np.random.default_rng(0).integers(0, 256, (8, 12, 4), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(samples[..., 0].astype(np.uint16) * 200 + samples[..., 1])
    return Image.fromarray(samples).convert(mode)


def assert_equal(found: Photo, expected: Photo) -> None:
    assert torch.equal(found.picture, expected.picture)
    assert (found.alpha is None) == (expected.alpha is None)
    assert found.alpha is None or expected.alpha is None or torch.equal(found.alpha, expected.alpha)
    assert found.details == expected.details


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Camera"
    return exif


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16", "1"])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_picture_in_memory_reads_as_its_file(tmp_path: Path, mode: str, loaded: bool) -> None:
    path = saved(tmp_path / "a.png", drawn(mode))
    with Image.open(path) as image:
        if loaded:
            image.load()
        assert_equal(photo_of(image), read_photo(path))


@pytest.mark.parametrize("ending", ["jpg", "tif", "webp", "png"])
def test_rotation_exif_and_profile_come_along(tmp_path: Path, ending: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path / f"a.{ending}", drawn("RGB"), exif=with_orientation(6), icc_profile=profile)
    with Image.open(path) as image:
        photo = photo_of(image)
    assert_equal(photo, read_photo(path))
    assert photo.picture.shape == (1, 12, 8, 3)


def test_a_picture_without_a_file_reads_too() -> None:
    photo = photo_of(drawn("RGB"))
    assert np.array_equal((photo.picture[0] * 255).round().numpy(), np.asarray(drawn("RGB")))


def test_samples_without_a_known_white_are_refused() -> None:
    with pytest.raises(PictureError, match="32 bits"):
        photo_of(Image.new("F", (4, 4)))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_photo_becomes_what_its_file_would_hold(tmp_path: Path, mode: str) -> None:
    profile = None if mode in ("L", "LA") else ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    beside = {"icc_profile": profile} if profile else {}
    photo = read_photo(saved(tmp_path / "a.png", drawn(mode), exif=with_orientation(3), **beside))
    alpha = None if photo.alpha is None else photo.alpha[0]
    write_photo(tmp_path / "b.png", photo.picture, photo.alpha, photo.details)
    image = pillow_of(photo.picture[0], alpha, photo.details)
    with Image.open(tmp_path / "b.png") as written:
        assert image.mode == written.mode == mode
        assert np.array_equal(np.asarray(image), np.asarray(written))
        assert image.info.get("icc_profile") == written.info.get("icc_profile") == profile
        assert dict(image.getexif()) == dict(written.getexif())
