"""`kintsugi convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console
from ..options import Overwrite

EXAMPLE = "Example: kintsugi convert InstaRevive_v1.ckpt InstaRevive_v1.safetensors"


def convert(
    pickle: Annotated[Path, typer.Argument(metavar="PICKLE", help="A .pt, .pth, .ckpt or .bin file of weights.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Turn a published pickle into a safetensors file, names and shapes kept. Nothing in the pickle is run."""
    from ...core.weights.convert import convert_pickle

    report = convert_pickle(pickle, out, overwrite)
    if report.left_out:
        console.say(f"Left out, as no weights: {', '.join(report.left_out)}")
    console.say(f"{out}  {report.tensors} tensors  {console.human_size(report.bytes)}")
