"""Shards of pairs: readable by anyone, the same bytes every time."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from kintsugi.core.errors import FileAccessError
from kintsugi.core.imaging.png_bytes import to_png
from kintsugi.core.pair_shards import PackedPair, key_of, shard_name, write_shard
from pair_reader import read_pairs


def packed(index: int) -> PackedPair:
    high = torch.rand(1, 8, 12, 3, generator=torch.Generator().manual_seed(index))
    return PackedPair(key_of(index), to_png(high), to_png(high[:, ::4, ::4]), {"index": index, "prompt": "façade"})


def test_a_shard_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_shard(tmp_path / shard_name(3), (packed(index) for index in (7, 12)))
    pairs = list(read_pairs(tmp_path / "000003.tar"))
    assert [facts for _, _, facts in pairs] == [{"index": 7, "prompt": "façade"}, {"index": 12, "prompt": "façade"}]
    for (high, low, _), index in zip(pairs, (7, 12), strict=True):
        expected = np.rint(torch.rand(1, 8, 12, 3, generator=torch.Generator().manual_seed(index))[0].numpy() * 255)
        np.testing.assert_array_equal(high, expected)
        np.testing.assert_array_equal(low, expected[::4, ::4])


def test_members_lie_by_key_and_hold_nothing_of_the_machine(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, [packed(1), packed(2)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [f"0000000{key}.{kind}" for key in (1, 2) for kind in ("hq.png", "lq.png", "json")]
    traces = {(member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) for member in members}
    assert traces == {(0, 0, 0, "", "", 0o644)}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match=r"gone.000000\.tar: cannot be written"):
        write_shard(tmp_path / "gone" / shard_name(0), [packed(1)])
