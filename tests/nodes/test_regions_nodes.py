from __future__ import annotations

import torch
from kintsugi.core.runtime import LocalHost
from kintsugi.nodes.photo import KintsugiLoadPhoto
from kintsugi.nodes.regions import KintsugiCropRegion, KintsugiPasteRegion
from PIL import Image

PICTURE = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(0))


def test_what_the_mask_editor_paints_is_what_is_replaced(host: LocalHost) -> None:
    """The editor stores a copy of the photo under the input folder, transparent where it is painted."""
    (host.folders.input / "clipspace").mkdir()
    alpha = Image.new("L", (64, 48), 255)
    alpha.paste(0, (20, 10, 40, 30))
    photo = Image.new("RGB", (64, 48), "gray")
    photo.putalpha(alpha)
    photo.save(host.folders.input / "clipspace" / "painted.png")
    assert KintsugiLoadPhoto.VALIDATE_INPUTS("clipspace/painted.png [input]") is True
    image, mask, _ = KintsugiLoadPhoto().load("clipspace/painted.png [input]")
    cropped, region = KintsugiCropRegion().crop(image, mask, 0.25, 0, False)
    (pasted,) = KintsugiPasteRegion().paste(image, torch.ones_like(cropped), region, 0, "painted")
    assert cropped.shape == (1, 32, 32, 3)
    assert torch.equal((pasted == 1).all(dim=3), mask == 1)


def test_crop_and_paste_leave_the_picture_as_it_was_with_the_widgets_defaults() -> None:
    mask = torch.zeros(1, 48, 64)
    mask[:, 10:30, 20:40] = 1
    defaults = {name: spec[1]["default"] for name, spec in KintsugiCropRegion.INPUT_TYPES()["required"].items() if "default" in spec[1]}
    cropped, region = KintsugiCropRegion().crop(PICTURE, mask, **{**defaults, "enlarge_to": 0})
    (pasted,) = KintsugiPasteRegion().paste(PICTURE, cropped, region, 16, "painted")
    assert torch.equal(pasted, PICTURE)
    enlarged, _ = KintsugiCropRegion().crop(PICTURE, mask, **defaults)
    assert enlarged.shape == (1, 512, 512, 3)


def test_a_fourth_channel_is_left_out() -> None:
    picture = torch.cat([PICTURE, torch.ones(1, 48, 64, 1)], dim=3)
    cropped, region = KintsugiCropRegion().crop(picture, torch.ones(1, 48, 64), 0.0, 0, False)
    (pasted,) = KintsugiPasteRegion().paste(picture, cropped, region, 0, "box")
    assert cropped.shape[3] == 3 and torch.equal(pasted, PICTURE)
