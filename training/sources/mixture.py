"""Several sources as one, with pictures that cannot be read replaced by others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from ...core.errors import FileAccessError, KintsugiError, PictureError, RecipeError
from .base import Example, Source

log = logging.getLogger("kintsugi")

LARGEST_SHARE = 0.1
"""Of the pictures tried, that may be unreadable."""
FEWEST_TRIED = 100
"""Pictures that the share is taken of at least, so that an early one alone does not stop a run."""


class Mixture:
    """Draws pictures from sources in proportion to their weights."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self._sources = sources
        self._shares = np.asarray(weights) / sum(weights)
        self._tried: list[set[int]] = [set() for _ in sources]
        self._unreadable: list[set[int]] = [set() for _ in sources]

    def draw(self, random: np.random.Generator) -> tuple[str, Example]:
        """Name and example by the generator's next numbers. An unreadable picture is named in the log, and the next numbers decide
        what replaces it. Raises PictureError when more than 10 % are unreadable."""
        while True:
            place = int(random.choice(len(self._sources), p=self._shares)) if len(self._sources) > 1 else 0
            source = self._sources[place]
            index = int(random.integers(len(source)))
            self._tried[place].add(index)
            try:
                return source.name(index), source.example(index)
            except (PictureError, FileAccessError) as error:
                self._note(place, index, error)

    def captions(self) -> Iterator[str]:
        """What is said of every picture, "" of one without a caption; those that cannot be read are passed over until they are drawn."""
        for source in self._sources:
            for index in range(len(source)):
                with suppress(PictureError, FileAccessError):
                    yield source.caption(index)

    def _note(self, place: int, index: int, error: KintsugiError) -> None:
        unreadable, source = self._unreadable[place], self._sources[place]
        if index not in unreadable:
            unreadable.add(index)
            log.warning("Left out training picture %s (%d so far): %s", source.name(index), len(unreadable), error)
        tried = max(len(self._tried[place]), min(len(source), FEWEST_TRIED))
        if len(unreadable) > LARGEST_SHARE * tried:
            raise RecipeError(
                f"{len(unreadable)} of {len(self._tried[place])} training pictures tried cannot be read, the last one: {error}",
                where="data",
                way_out="Remove the damaged files, or copy them again.",
            ) from error
