"""Pairs of a shard as core/pair_shards.py documents them, read with nothing but that."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Pair = tuple[np.ndarray, np.ndarray, dict[str, Any]]


def read_pairs(shard: Path) -> Iterator[Pair]:
    """(high quality, low quality, facts) of every pair."""
    with tarfile.open(shard) as tar:
        contents = ((member.name.split(".", 1), tar.extractfile(member)) for member in tar)
        for _, parts in groupby(((*name, file.read()) for name, file in contents if file), key=lambda part: part[0]):
            files = {kind: content for _, kind, content in parts}
            high, low = (np.asarray(Image.open(io.BytesIO(files[f"{side}.png"]))) for side in ("hq", "lq"))
            yield high, low, json.loads(files["json"])
