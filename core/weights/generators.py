"""One-step generators by method and name: the published files of a method, our own, or the embedded ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import BadValueError
from ..methods.one_step import Generator
from ..models.offload import spared
from ..runtime import DTYPES, current_host
from . import embedded, gendr, instarevive, tsd_sr
from .empty import EmptyMethod
from .families import Shapes
from .locations import chosen_file, find_files
from .options import LoadOptions


@dataclass(frozen=True)
class MethodWeights:
    """How a method's files are found and read.

    published: the file below `kintsugi/` that `auto` looks for. companions: names of files beside it that are no student.
    empty: the method of a file's metadata and shapes, on the meta device.
    """

    published: str
    companions: frozenset[str]
    read: Callable[[Path, LoadOptions], Generator]
    empty: Callable[[dict[str, Any], Shapes], EmptyMethod]


READERS: dict[str, MethodWeights] = {
    gendr.KIND: MethodWeights(gendr.PUBLISHED, gendr.COMPANIONS, gendr.read_generator, gendr.empty_method),
    tsd_sr.KIND: MethodWeights(tsd_sr.PUBLISHED, tsd_sr.COMPANIONS, tsd_sr.read_generator, tsd_sr.empty_method),
    instarevive.KIND: MethodWeights(instarevive.PUBLISHED, instarevive.COMPANIONS, instarevive.read_generator, instarevive.empty_method),
}
METHODS = tuple(READERS)


def weights_choices() -> list[str]:
    """What the weights widget of Load One-Step Generator offers: auto, embedded, then the students of every method."""
    students = [name for name in find_files("kintsugi") if _is_student(PurePosixPath(name))]
    return ["auto", "embedded", *students]


def _is_student(name: PurePosixPath) -> bool:
    reader = READERS.get(name.parts[0])
    return reader is not None and name.name not in reader.companions


def load_generator(method: str, weights: str = "auto", dtype: str = "auto", options: LoadOptions | None = None) -> Generator:
    """The generator on the host's device.

    weights: a file of `kintsugi/<method>/` by name, `embedded`, or `auto`: the method's own folder when it holds the
    published file, else embedded. dtype: `auto` (the host's), fp32, bf16, fp16. Raises WeightsError and BadValueError.
    """
    if method not in READERS:
        raise BadValueError(f"there is no one-step method {method!r}.", way_out=f"Known: {', '.join(METHODS)}.")
    asked = options or LoadOptions()
    chosen = replace(asked, dtype=DTYPES.get(dtype, current_host().dtype), offload=spared(asked.offload))
    student = chosen_file(method, weights, READERS[method].published, embedded.GENERATORS[method])
    return READERS[method].read(student, chosen)
