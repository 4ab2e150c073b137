"""Folders, pairs of folders and mixtures of them as training pictures."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from kintsugi.core.errors import KintsugiError, RecipeError
from kintsugi.training.data import Batches
from kintsugi.training.recipe import DataSettings
from kintsugi.training.sources import picture_source
from kintsugi.training.sources.base import read_picture
from kintsugi.training.sources.folders import FolderPictures, PairedPictures
from kintsugi.training.sources.mixture import Mixture
from PIL import Image


def write_pictures(folder: Path, names: list[str], size: tuple[int, int] = (40, 48), level: int = 0) -> Path:
    """Pictures of `size` (height, width) whose red is their place in the list and whose green is `level`."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        picture = np.zeros((*size, 3), np.uint8)
        picture[..., 0], picture[..., 1] = place, level
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return folder


def test_a_folder_gives_every_picture_below_it_in_name_order(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", ["a.png", "b/c.png", "d.png"])
    pictures = FolderPictures(folder)
    assert [pictures.name(index) for index in range(len(pictures))] == [str(folder / name) for name in ("a.png", "b/c.png", "d.png")]
    assert [int(pictures.example(index).high_quality[0, 0, 0]) for index in range(3)] == [0, 1, 2]
    assert len(FolderPictures(folder, first=2)) == 2


def test_captions_lie_beside_a_picture_or_in_one_file(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", ["a.png", "b/c.png", "d.png"])
    (folder / "a.txt").write_text("a cat\n", encoding="utf-8")
    (folder / "captions.jsonl").write_text(json.dumps({"file": "b/c.png", "caption": "ein Käse"}) + "\n", encoding="utf-8")
    pictures = FolderPictures(folder)
    assert [pictures.example(index).caption for index in range(3)] == ["a cat", "ein Käse", ""]


def test_a_mixture_tells_all_captions_without_reading_a_picture(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", ["a.png", "b.png", "c.png"])
    (folder / "a.txt").write_text("a cat", encoding="utf-8")
    (folder / "b.txt").write_bytes(b"\xff")
    (folder / "c.png").write_bytes(b"no picture")
    mixture = picture_source(DataSettings(source="folder", folder=folder))
    assert list(mixture.captions()) == ["a cat", ""]


def test_a_line_that_is_no_caption_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", ["a.png"])
    (folder / "captions.jsonl").write_text('{"file": "a.png", "caption": "x"}\n{"text": "y"}\n')
    with pytest.raises(RecipeError, match="line 2"):
        FolderPictures(folder)


def test_pictures_are_read_upright_in_8_bits(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.full((2, 3), 65535 // 2, np.uint16)).save(tmp_path / "deep.png")
    assert read_picture(tmp_path / "turned.png").shape == (4, 2, 3)
    assert (read_picture(tmp_path / "deep.png") == 127).all()


def test_pairs_are_found_by_their_names(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p" / "high", ["a.png", "b.png"])
    write_pictures(tmp_path / "p" / "low", ["a.jpg", "b.jpg"], level=200)
    example = PairedPictures(tmp_path / "p").example(1)
    assert example.low_quality is not None
    assert example.high_quality[0, 0, 0] == 1
    assert abs(int(example.low_quality[0, 0, 1]) - 200) < 4


def test_a_picture_without_a_partner_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "p" / "high", ["a.png", "b.png"])
    write_pictures(tmp_path / "p" / "low", ["a.png"])
    with pytest.raises(RecipeError, match=r"high/b\.png"):
        PairedPictures(tmp_path / "p")


def test_a_mixture_draws_by_weight(tmp_path: Path) -> None:
    mix = [{"source": "folder", "folder": name, "weight": weight} for name, weight in (("a", 3.0), ("b", 1.0))]
    for level, name in enumerate("ab"):
        write_pictures(tmp_path / name, ["x.png", "y.png"], level=level)
    mixture = picture_source(DataSettings.model_validate({"root": tmp_path, "mix": mix}))
    random = np.random.default_rng(0)
    levels = [int(mixture.draw(random)[1].high_quality[0, 0, 1]) for _ in range(400)]
    assert abs(levels.count(0) - 300) < 30


def test_an_unreadable_picture_is_named_once_and_replaced_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_pictures(tmp_path / "p", [f"{index:02d}.png" for index in range(20)], size=(32, 32))
    (folder / "07.png").write_bytes(b"no picture")
    data = DataSettings(source="folder", folder=folder, crop=32)
    forwards, backwards = (Batches(data, picture_source(data), 2, 16) for _ in range(2))
    with caplog.at_level(logging.WARNING, "kintsugi"):
        drawn = [forwards[index].names for index in range(6)]
    assert ["07.png" in record.getMessage() for record in caplog.records] == [True]
    assert [backwards[index].names for index in range(5, -1, -1)] == drawn[::-1]
    assert not any("07.png" in name for names in drawn for name in names)


def test_too_many_unreadable_pictures_stop_the_run(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", [f"{index:02d}.png" for index in range(10)])
    for index in (2, 5):
        (folder / f"{index:02d}.png").write_bytes(b"no picture")
    mixture = Mixture([FolderPictures(folder)], [1.0])
    random = np.random.default_rng(0)
    with pytest.raises(KintsugiError, match="2 of"):
        for _ in range(200):
            mixture.draw(random)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "folder"}, "no folder is named"),
        ({"source": "shards", "folder": "gone"}, "there is no folder"),
        ({"source": "folder", "folder": "empty"}, "no pictures"),
        ({"source": "shards", "folder": "empty"}, "no shards"),
    ],
)
def test_a_source_that_is_not_there_is_named(data: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=message):
        picture_source(DataSettings.model_validate({"root": tmp_path, **data}))


def test_a_mixture_beside_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mix names the sources"):
        DataSettings.model_validate({"folder": tmp_path, "mix": [{"source": "folder", "folder": "a", "weight": 1.0}]})
