from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.errors import KintsugiError, PictureError
from kintsugi.core.imaging.photo import PhotoDetails
from kintsugi.core.imaging.reading import read_photo
from kintsugi.core.imaging.writing import write_photo
from kintsugi.core.runtime import LocalHost
from kintsugi.nodes import color, photo, quality
from kintsugi.nodes.color import KintsugiColorFix
from kintsugi.nodes.photo import SAME, KintsugiLoadPhoto, KintsugiSavePhoto
from kintsugi.nodes.quality import KintsugiCompare, KintsugiMeasureQuality
from PIL import Image

PICTURES = torch.rand(2, 10, 12, 3, generator=torch.Generator().manual_seed(0))


def save(images: torch.Tensor = PICTURES, **changes: object) -> list[dict[str, str]]:
    defaults = {"filename_prefix": "a", "format": SAME, "bit_depth": SAME, "quality": 95, "keep_metadata": True}
    return KintsugiSavePhoto().save(images, **{**defaults, **changes})["ui"]["images"]


def test_sixteen_bit_photo_with_alpha_goes_through_the_graph_unchanged(host: LocalHost) -> None:
    details = PhotoDetails(bit_depth=16)
    alpha = torch.rand(10, 12, generator=torch.Generator().manual_seed(1))
    write_photo(host.folders.input / "in.png", PICTURES[:1], alpha, details)
    image, mask, loaded = KintsugiLoadPhoto().load("in.png")
    (entry,) = save(image, photo=loaded, mask=mask)
    written, source = read_photo(host.folders.output / entry["filename"]), read_photo(host.folders.input / "in.png")
    assert entry == {"filename": "a_00001_.png", "subfolder": "", "type": "output"}
    assert torch.equal(written.picture, source.picture) and written.details.bit_depth == 16
    assert written.alpha is not None and source.alpha is not None and (written.alpha - source.alpha).abs().max() < 1e-6


def test_alpha_is_scaled_to_the_restored_picture(host: LocalHost) -> None:
    mask = torch.zeros(1, 5, 6)
    mask[:, :, :3] = 1
    (entry,) = save(PICTURES[:1], mask=mask)
    alpha = read_photo(host.folders.output / entry["filename"]).alpha
    assert alpha is not None and alpha.shape == (1, 10, 12) and alpha[0, 5, 0] == 0 and alpha[0, 5, -1] == 1


def test_empty_mask_of_another_size_writes_no_transparency(host: LocalHost) -> None:
    (entry, second) = save(mask=torch.zeros(1, 64, 64), format="jpeg")
    assert entry["filename"] == "a_00001_.jpg" and second["filename"] == "a_00002_.jpg"
    with pytest.raises(PictureError, match="transparency"):
        save(mask=torch.ones(1, 64, 64), format="jpeg")


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "avif", "tiff"])
def test_every_format_is_written_with_the_workflow(file_format: str, host: LocalHost) -> None:
    images = torch.full_like(PICTURES, 0.4)
    entries = save(images, format=file_format, filename_prefix="sub/b", prompt={"1": {}}, extra_pnginfo={"workflow": {"nodes": []}})
    assert len(entries) == 2
    for entry in entries:
        path = host.folders.output / entry["subfolder"] / entry["filename"]
        assert entry["subfolder"] == "sub" and (read_photo(path).picture - 0.4).abs().max() < 0.01
        if file_format == "png":
            assert json.loads(Image.open(path).info["workflow"]) == {"nodes": []}


def test_no_workflow_is_written_where_the_host_stores_none(host: LocalHost) -> None:
    host.stores_workflows = False
    (entry, _) = save(prompt={"1": {}}, extra_pnginfo={"workflow": {"nodes": []}})
    (compared,) = KintsugiCompare().compare(PICTURES[:1], PICTURES[:1], "c", prompt={"1": {}})["ui"]["images"]
    for name in (entry["filename"], compared["filename"]):
        assert not {"prompt", "workflow"} & set(Image.open(host.folders.output / name).info)


def test_metadata_is_kept_or_left_out(host: LocalHost) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    details = PhotoDetails("x.jpg", "jpeg", exif=exif.tobytes())
    kept, dropped = save(photo=details)[0], save(photo=details, keep_metadata=False)[0]
    assert Image.open(host.folders.output / kept["filename"]).getexif()[0x010F] == "Maker"
    assert not Image.open(host.folders.output / dropped["filename"]).getexif()


def test_load_photo_confines_names_and_notices_a_changed_file(host: LocalHost) -> None:
    path = host.folders.input / "a.png"
    Image.new("RGB", (3, 3)).save(path)
    (host.folders.input / "notes.txt").write_text("")
    assert KintsugiLoadPhoto.INPUT_TYPES()["required"]["image"][0] == ["a.png"]
    assert KintsugiLoadPhoto.VALIDATE_INPUTS("a.png") is True
    assert "Invalid image file: none.png" in str(KintsugiLoadPhoto.VALIDATE_INPUTS("none.png"))
    assert "leaves" in str(KintsugiLoadPhoto.VALIDATE_INPUTS("../a.png"))
    before = KintsugiLoadPhoto.IS_CHANGED("a.png")
    assert KintsugiLoadPhoto.IS_CHANGED("a.png") == before
    Image.new("RGB", (3, 3), "red").save(path)
    assert KintsugiLoadPhoto.IS_CHANGED("a.png") != before
    mask = KintsugiLoadPhoto().load("a.png")[1]
    assert mask.shape == (1, 3, 3) and not mask.any()


@pytest.mark.parametrize("method", ["wavelet", "adain", "lab"])
def test_color_fix_takes_the_mean_colour_of_the_reference(method: str) -> None:
    flat, tinted = torch.full((1, 64, 64, 3), 0.5), torch.tensor([0.55, 0.45, 0.5]).expand(1, 64, 64, 3)
    (fixed,) = KintsugiColorFix().fix(flat, tinted, method, 1.0)
    assert fixed.shape == flat.shape and (fixed - tinted).abs().max() < 0.03


def test_measure_reports_every_picture_and_the_mean() -> None:
    other = (PICTURES + 0.1).clamp(0, 1)
    result = KintsugiMeasureQuality().measure(PICTURES, "psnr", other)
    report, value = result["result"]
    assert result["ui"]["text"] == [report] and report.splitlines()[0].startswith("1: psnr ")
    assert report.splitlines()[-1].startswith("mean: psnr ") and 19 < value < 25
    single = KintsugiMeasureQuality().measure(PICTURES[:1], "noise, colorfulness")["result"][0]
    assert single.startswith("noise ") and ", colorfulness " in single
    with pytest.raises(KintsugiError, match="reference"):
        KintsugiMeasureQuality().measure(PICTURES, "psnr")


def test_measure_gives_the_chart_numbers_that_json_has() -> None:
    same = KintsugiMeasureQuality().measure(PICTURES, "psnr", PICTURES)["ui"]["kintsugi_quality"]
    assert [entry["scores"][0] for entry in same] == [{"metric": "psnr", "value": "inf", "unit": "dB", "higher_is_better": True}] * 2
    (single,) = KintsugiMeasureQuality().measure(PICTURES[:1], "noise, colorfulness")["ui"]["kintsugi_quality"]
    assert [entry["higher_is_better"] for entry in single["scores"]] == [False, None]
    json.dumps([*same, single], allow_nan=False)


def test_compare_writes_both_halves_at_the_size_of_after(host: LocalHost) -> None:
    ui = KintsugiCompare().compare(torch.zeros(1, 5, 6, 3), torch.ones(2, 10, 12, 3), "compare")["ui"]
    assert [entry["filename"] for entry in ui["images"]] == ["compare_00001_.png", "compare_00002_.png"]
    assert ui["kintsugi_compare"] == ui["images"]
    pixels = np.asarray(Image.open(Path(host.folders.output) / "compare_00002_.png"))
    assert pixels.shape == (10, 24, 3) and not pixels[:, :12].any() and (pixels[:, 12:] == 255).all()


@pytest.mark.parametrize("node", [*photo.NODES, *color.NODES, *quality.NODES], ids=lambda node: node.__name__)
def test_every_input_and_output_is_explained(node: type) -> None:
    inputs = node.INPUT_TYPES()
    assert all(options["tooltip"] for part in ("required", "optional") for _, options in inputs.get(part, {}).values())
    assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)
    assert node.CATEGORY.startswith("image/restoration/") and node.DESCRIPTION and node.DISPLAY_NAME and node.SEARCH_ALIASES
