"""`kintsugi fluxgen`: a data set of pairs that Flux drew, in four stages, each of which goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import Any

from ..core.errors import FileAccessError
from ..core.models.offload import Offload
from ..core.pair_shards import INDEX, PackedPair, key_of, shard_name, write_shard
from ..core.runtime import Progress, current_host
from ..core.selection import Selection, select
from .fluxgen_folder import POOL, SCORES, Entry, RunFolder, run_folder
from .fluxgen_worker import Order
from .teams import Team, agreed, in_order

EIGHT_BITS: Offload = "layerwise fp8"


@dataclass(frozen=True)
class Summary:
    """What one sitting did and what the run has come to. weights: the prior; drawn: pictures made now, found: those of earlier
    sittings; metrics: what passed, by measure."""

    weights: str
    drawn: int
    found: int
    kept: int
    dropped: int
    metrics: dict[str, str]
    shards: list[str]


def run_fluxgen(folder: Path, order: Order, team: Team) -> Summary:
    """Draw a pool, score it, select, and write shards of pairs, as far as that is not done yet.

    The files of a finished run depend on the order alone, not on the team or on how often it was stopped. Raises BadValueError when the
    folder holds a run of another order, or when workers would give different results.
    """
    found = agreed(team.each("describe"))
    with run_folder(folder, settings_of(order, found)) as run:
        data_set = DataSet(run, order, team, found["metrics"])
        drawn = 0 if data_set.is_complete() else data_set.draw()
        data_set.score()
        selection = data_set.select()
        shards = data_set.write_pairs(selection)
    kept = len(selection.kept)
    bounds = {name: str(bound) for name, bound in selection.bounds.items()}
    return Summary(found["weights"], drawn, order.count - drawn, kept, order.count - kept, bounds, shards)


def settings_of(order: Order, found: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that decides the files of a run, as JSON."""
    asked = asdict(order)
    return {
        **asked.pop("drawing"),
        # Where weights wait changes nothing, how they are kept does.
        "eight_bits": asked.pop("offload") == EIGHT_BITS,
        **asked,
        "prompts": len(order.prompts),
        "prompts_sha256": hashlib.sha256(json.dumps(order.prompts).encode()).hexdigest(),
        **found,
        "metrics": list(found["metrics"]),
    }


class DataSet:
    """A run's folder while its team works on it. better: whether more is better, by measure."""

    def __init__(self, run: RunFolder, order: Order, team: Team, better: Mapping[str, bool]) -> None:
        self._run, self._order, self._team, self._better = run, order, team, better
        self._pool, self._scores, self._index = (run.ledger(name) for name in (POOL, SCORES, INDEX))

    def is_complete(self) -> bool:
        """Whether nothing is left to do, even where the pool's pictures were removed afterwards."""
        if not len(self._pool) == len(self._scores) == self._order.count:
            return False
        return all(self._is_written(*shard) for shard in self._shards(self.select()))

    def draw(self) -> int:
        """Stage 1, the pool; how many pictures were drawn."""
        order, run = self._order, self._run
        missing = [index for index in range(order.count) if index not in self._pool or not run.picture(index).is_file()]
        progress = current_host().progress(len(missing), "Pictures")
        for place, (png, width, height) in self._team.map("draw", ((index,) for index in missing)):
            index = missing[place]
            run.write(run.picture(index), png)
            made = {"seed": order.seed_of(index), "prompt": order.prompt_of(index), "width": width, "height": height}
            self._pool.add({"index": index, "key": key_of(index), **made})
            progress.advance()
        self._pool.settle()
        return len(missing)

    def score(self) -> None:
        """Stage 2, every picture by every measure."""
        missing = [index for index in range(self._order.count) if index not in self._scores]
        progress = current_host().progress(len(missing), "Scores")
        for place, scores in self._team.map("score", ((*self._picture(index), tuple(self._better)) for index in missing)):
            self._scores.add({"index": missing[place], "scores": scores})
            progress.advance()
        self._scores.settle()

    def select(self) -> Selection:
        """Stage 3, over the whole pool."""
        rows = (self._scores[index]["scores"] for index in range(self._order.count))
        pool = [{name: nan if value is None else value for name, value in row.items()} for row in rows]
        return select(pool, self._better, self._order.percentile)

    def write_pairs(self, selection: Selection) -> list[str]:
        """Stage 4, shard by shard; the names of all shards."""
        shards = list(self._shards(selection))
        missing = [(name, kept) for name, kept in shards if not self._is_written(name, kept)]
        progress = current_host().progress(sum(len(kept) for _, kept in missing), "Pairs")
        for name, kept in missing:
            entries: list[Entry] = []
            with self._run.writing(self._run.path / name) as temporary:
                write_shard(temporary, self._pairs(name, kept, entries, progress))
            self._index.add(*entries)
        self._index.settle()
        return [name for name, _ in shards]

    def _pairs(self, shard: str, kept: Sequence[int], entries: list[Entry], progress: Progress) -> Iterator[PackedPair]:
        """The pairs of a shard; their lines of the index are put into entries."""
        tasks = ((*self._picture(index), index) for index in kept)
        for index, (high_quality, low_quality, degradation) in zip(kept, in_order(self._team.map("pair", tasks)), strict=True):
            scores = self._scores[index]["scores"]
            entries.append({**self._pool[index], "scores": scores, "degradation": degradation, "shard": shard})
            yield PackedPair(key_of(index), high_quality, low_quality, entries[-1])
            progress.advance()

    def _shards(self, selection: Selection) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(name, records) of every shard."""
        size = self._order.shard_size
        for number, first in enumerate(range(0, len(selection.kept), size)):
            yield shard_name(number), selection.kept[first : first + size]

    def _is_written(self, name: str, kept: Sequence[int]) -> bool:
        return self._run.has(name) and all(index in self._index for index in kept)

    def _picture(self, index: int) -> tuple[str, bytes]:
        """Path and content of a picture of the pool."""
        path = self._run.picture(index)
        try:
            return str(path), path.read_bytes()
        except OSError as error:
            raise FileAccessError(
                f"cannot be read ({error.strerror}).", where=str(path), way_out="Remove it: the same picture is drawn again with --resume."
            ) from error
