"""Pictures in tar files, read one by one where they lie: pairs as core/pair_shards.py writes them, or plain WebDataset."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

from ...core.errors import FileAccessError, RecipeError
from .base import Example, Picture, decode_picture, decode_text
from .shard_index import FACTS, LOW, PICTURE, TEXT, ShardIndex, shard_index

# What a caption is called in the JSON of a member, by whoever wrote it; FluxGen's is the prompt.
CAPTION_KEYS = ("caption", "text", "prompt")


class ShardPictures:
    """KEY.hq.png with KEY.lq.png of pairs, or KEY.png, .jpg or .webp, in the tar files below a folder; captions in KEY.txt or KEY.json.

    stored_pairs: give the lq.png as well, and leave out what has none.
    """

    def __init__(self, folder: Path, first: int | None = None, stored_pairs: bool = False) -> None:
        self._folder, self._stored_pairs = folder, stored_pairs
        index = self._index
        usable = (index.spans[:, LOW, 0] >= 0).nonzero()[0] if stored_pairs else range(len(index.keys))
        self._chosen = usable[:first]
        if not len(self._chosen):
            raise RecipeError(
                f"the shards of {folder} hold no pairs.", where="data.stored_pairs", way_out="Name a data.degradation instead."
            )

    @cached_property
    def _index(self) -> ShardIndex:
        return shard_index(self._folder)

    def __len__(self) -> int:
        return len(self._chosen)

    def name(self, index: int) -> str:
        place = int(self._chosen[index])
        path = self._index.paths[int(self._index.shard[place])]
        return f"{path}/{self._index.keys[place].decode('utf-8', 'surrogateescape')}"

    def example(self, index: int) -> Example:
        low = self._picture(index, LOW) if self._stored_pairs else None
        return Example(self._picture(index, PICTURE), low, self.caption(index))

    def _picture(self, index: int, role: int) -> Picture:
        return decode_picture(self._content(index, role), self.name(index))

    def caption(self, index: int) -> str:
        if self._has(index, TEXT):
            return decode_text(self._content(index, TEXT), self.name(index))
        if self._has(index, FACTS):
            return decode_text(self._content(index, FACTS), self.name(index), _caption_of)
        return ""

    def _has(self, index: int, role: int) -> bool:
        return bool(self._index.spans[int(self._chosen[index]), role, 0] >= 0)

    def _content(self, index: int, role: int) -> bytes:
        """A member's bytes, and no more of its shard."""
        place = int(self._chosen[index])
        path = self._index.paths[int(self._index.shard[place])]
        begin, size = (int(number) for number in self._index.spans[place, role])
        try:
            with path.open("rb") as file:
                file.seek(begin)
                return file.read(size)
        except OSError as error:
            raise FileAccessError(f"cannot be read: {error.strerror}.", where=str(path), way_out="Check its permissions.") from error


def _caption_of(text: str) -> str:
    facts = json.loads(text)
    if not isinstance(facts, dict):
        return ""
    return str(next((facts[key] for key in CAPTION_KEYS if facts.get(key)), ""))
