"""Pairs to train restorers on, as shards that WebDataset and any tar program read.

A data set is a folder of uncompressed tar files, 000000.tar and on, with an index.jsonl beside them. In a shard every pair is three
members in a row, KEY.hq.png, KEY.lq.png and KEY.json, in ascending order of the keys; the key has eight digits.

- hq.png: what the restorer should give, 8-bit RGB.
- lq.png: what it is given, 8-bit RGB, smaller by the scale of the degradation. A restorer works at the size of hq.png: enlarge it
  to that, bicubically, as the pictures of a batch are cut.
- json: an object, the pair's line in index.jsonl. FluxGen writes `index`, `key`, `seed`, `prompt`, `width` and `height` (of hq.png),
  `scores` (measure -> number, of the picture before it was sharpened into hq.png), `degradation` (what
  core.degradation.pipeline.replay() makes lq.png of hq.png with) and `shard`.

A shard's bytes are decided by its pairs: members have no times, owners or other traces of the machine.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FileAccessError

INDEX = "index.jsonl"


@dataclass(frozen=True)
class PackedPair:
    """A pair as its shard holds it: two PNG files and the facts of its JSON."""

    key: str
    high_quality: bytes
    low_quality: bytes
    facts: Mapping[str, Any]

    def members(self) -> Iterable[tuple[str, bytes]]:
        """(name, content) in the shard's order."""
        yield f"{self.key}.hq.png", self.high_quality
        yield f"{self.key}.lq.png", self.low_quality
        yield f"{self.key}.json", json.dumps(self.facts).encode()


def key_of(index: int) -> str:
    """`00000012`."""
    return f"{index:08d}"


def shard_name(number: int) -> str:
    """`000003.tar`."""
    return f"{number:06d}.tar"


def write_shard(path: Path, pairs: Iterable[PackedPair]) -> None:
    """Write the pairs, which may come one by one, in their order. Raises FileAccessError where the file cannot be written."""
    try:
        # Plain tar headers: others hold times in fractions of a second.
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
            for pair in pairs:
                for name, content in pair.members():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    except OSError as error:
        raise FileAccessError(f"cannot be written ({error.strerror}).", where=str(path), way_out="Check the free space.") from error
