"""Tar files as training pictures: FluxGen's pairs and plain WebDataset, whole and damaged."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from kintsugi.core.errors import PictureError, RecipeError
from kintsugi.core.pair_shards import PackedPair, key_of, shard_name, write_shard
from kintsugi.training.sources import shards
from kintsugi.training.sources.shard_index import shard_index
from kintsugi.training.sources.shards import ShardPictures
from PIL import Image


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def encoded(level: int, side: int = 24, kind: str = "PNG") -> bytes:
    """Noise, so that a file has some length, around a red of `level`."""
    picture = np.random.default_rng(level).integers(0, 256, (side, side, 3), dtype=np.uint8)
    picture[0, 0] = level
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format=kind, quality=95) if kind != "PNG" else Image.fromarray(picture).save(file, format=kind)
    return file.getvalue()


def pair(index: int) -> PackedPair:
    return PackedPair(key_of(index), encoded(index), encoded(100 + index, 12), {"index": index, "prompt": f"scene {index}"})


def pair_shards(folder: Path) -> Path:
    folder.mkdir()
    write_shard(folder / shard_name(0), [pair(0), pair(1)])
    write_shard(folder / shard_name(1), [pair(2)])
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def reds(pictures: ShardPictures) -> list[int]:
    return [int(pictures.example(index).high_quality[0, 0, 0]) for index in range(len(pictures))]


def test_pairs_of_fluxgen_are_read_with_their_prompt(tmp_path: Path) -> None:
    pictures = ShardPictures(pair_shards(tmp_path / "shards"), stored_pairs=True)
    example = pictures.example(2)
    assert reds(pictures) == [0, 1, 2]
    assert example.low_quality is not None
    assert example.low_quality.shape == (12, 12, 3)
    assert example.low_quality[0, 0, 0] == 102
    assert example.caption == "scene 2"
    assert pictures.name(2).endswith("000001.tar/00000002")


def test_a_pair_may_be_taken_for_its_clean_side_alone(tmp_path: Path) -> None:
    assert ShardPictures(pair_shards(tmp_path / "shards")).example(0).low_quality is None


def test_plain_webdataset_is_read_with_its_captions(tmp_path: Path) -> None:
    members = {
        "set/a.png": encoded(1), "set/a.txt": b"a cat\n",
        "set/b.jpg": encoded(2, kind="JPEG"), "set/b.json": json.dumps({"text": "a dog"}).encode(),
        "set/c.x.webp": b"of a kind that is not known", "set/d.webp": encoded(4, kind="WEBP"), "set/d.cls": b"7",
    }  # fmt: skip
    write_tar(tmp_path / "shards" / "x.tar", members)
    pictures = ShardPictures(tmp_path / "shards")
    assert [pictures.name(index).rpartition("/")[2] for index in range(len(pictures))] == ["a", "b", "d"]
    assert [pictures.example(index).caption for index in range(3)] == ["a cat", "a dog", ""]


def test_only_the_members_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = ShardPictures(pair_shards(tmp_path / "shards"))
    read: list[int] = []
    decode = shards.decode_picture
    monkeypatch.setattr(shards, "decode_picture", lambda content, where: (read.append(len(content)), decode(content, where))[1])
    pictures.example(1)
    assert read == [len(encoded(1))]


def test_the_index_is_made_once_and_anew_when_a_shard_changes(tmp_path: Path) -> None:
    folder = pair_shards(tmp_path / "shards")
    kept = tmp_path / "data" / "kintsugi" / "shards"
    shard_index(folder)
    shard_index(folder)
    assert len(list(kept.iterdir())) == 1
    write_shard(folder / shard_name(1), [pair(5), pair(6)])
    assert reds(ShardPictures(folder)) == [0, 1, 5, 6]
    assert len(list(kept.iterdir())) == 2


def test_a_shard_that_was_cut_short_gives_what_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pair_shards(tmp_path / "shards")
    content = (folder / "000000.tar").read_bytes()
    cut = content.index(b"00000001.hq.png") + 512 + 100
    (folder / "000000.tar").write_bytes(content[:cut])
    with caplog.at_level(logging.WARNING, "kintsugi"):
        assert reds(ShardPictures(folder)) == [0, 2]
    assert "00000001.hq.png is cut short" in caplog.text


def test_a_damaged_header_costs_its_member_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pair_shards(tmp_path / "shards")
    content = bytearray((folder / "000000.tar").read_bytes())
    begin = content.index(b"00000000.hq.png")
    content[begin : begin + 200] = b"\xff" * 200
    (folder / "000000.tar").write_bytes(content)
    with caplog.at_level(logging.WARNING, "kintsugi"):
        assert reds(ShardPictures(folder)) == [1, 2]
    assert "are no member" in caplog.text
    assert "00000000 has no picture" in caplog.text


def test_a_file_that_is_no_tar_is_named_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = pair_shards(tmp_path / "shards")
    (folder / "000000.tar").write_bytes(b"no archive" * 200)
    with caplog.at_level(logging.WARNING, "kintsugi"):
        assert reds(ShardPictures(folder)) == [2]
    assert "000000.tar" in caplog.text


def test_a_damaged_picture_is_refused_by_its_shard_and_key(tmp_path: Path) -> None:
    write_tar(tmp_path / "shards" / "x.tar", {"a.png": encoded(1)[:200], "b.png": encoded(2), "b.txt": b"\xff\xfe"})
    pictures = ShardPictures(tmp_path / "shards")
    with pytest.raises(PictureError, match=r"x\.tar/a: .*damaged"):
        pictures.example(0)
    with pytest.raises(PictureError, match=r"x\.tar/b: its caption"):
        pictures.example(1)


def test_shards_without_pairs_are_refused_where_pairs_are_asked_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "shards" / "x.tar", {"a.png": encoded(1)})
    with pytest.raises(RecipeError, match="no pairs"):
        ShardPictures(tmp_path / "shards", stored_pairs=True)
