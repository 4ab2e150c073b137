"""The five validation photos, their three fixed degradations, and what a restorer makes of them: what quality.py and ablation.py
measure with. No photo is ever trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np
import torch
from kintsugi.core.degradation.fixed_modes import MODES, Mode, Picture, degrade_fixed, validation_crop
from kintsugi.core.folders import Folders
from kintsugi.core.graph.ui_format import BYPASS
from kintsugi.core.quality import measure
from kintsugi.headless.changes import Changes, only_loader, picture_inputs
from kintsugi.headless.host import command_line_host
from kintsugi.headless.options import HostOptions
from kintsugi.headless.run import WorkflowRunner, find_workflow
from numpy.typing import NDArray
from PIL import Image

Restorer = Callable[[Picture], Picture]

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
MEASURES = ("psnr", "ssim", "swd", "grid")
INPUT = "input"
AT_SCALE_1 = {"scale": 1}


@dataclass(frozen=True)
class Row:
    """Means over the photos of one kind of picture in one mode; worst_grid is the largest of any photo."""

    mode: Mode
    name: str
    psnr: float
    ssim: float
    swd: float
    grid: float
    worst_grid: float


def validation_photos() -> list[Picture]:
    """The five photos [H, W, 3], cropped, in the order that seeds their noise.

    Values as stored, as skimage.data gives them: converting the one with a wide profile to sRGB would change the measure.
    """
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [validation_crop(np.asarray(Image.open(folder / name).convert("RGB"))) for name in PHOTOS]


def to_levels(values: NDArray[np.floating]) -> Picture:
    """0..1 -> 0..255, clipped and rounded."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def planes(picture: Picture) -> torch.Tensor:
    """[1, 3, H, W] in 0..1."""
    return torch.from_numpy(picture.astype(np.float32) / 255).movedim(2, 0)[None]


def unchanged(picture: Picture) -> Picture:
    """The input itself, for its row."""
    return picture


def measure_mode(photos: list[Picture], mode: Mode, restorers: Mapping[str, Restorer]) -> list[Row]:
    """A row for each restorer, in their order."""
    inputs = [degrade_fixed(photo, mode, index) for index, photo in enumerate(photos)]
    rows = []
    for name, restore in restorers.items():
        scores = [measure(planes(restore(degraded)), planes(photo), MEASURES) for degraded, photo in zip(inputs, photos, strict=True)]
        means = {measured: mean(score[measured] for score in scores) for measured in MEASURES}
        rows.append(Row(mode, name, **means, worst_grid=max(score["grid"] for score in scores)))
    return rows


def measure_every_mode(photos: list[Picture], restorers: Mapping[str, Restorer]) -> list[Row]:
    """The rows of measure_mode() for every mode."""
    return [row for mode in MODES for row in measure_mode(photos, mode, restorers)]


@dataclass(frozen=True)
class OwnStudent:
    """A one-step method's file in a folder that holds nothing else but what belongs to it. loader: title of the node that loads it."""

    loader: str
    method: str
    file: Path

    @property
    def choice(self) -> str:
        """What the node's weights widget offers for it."""
        return f"{self.method}/{self.file.name}"


@dataclass(frozen=True)
class Workflow:
    """A workflow that ships, and what is changed in it before it runs.

    values: for every widget of that name, instead of those it stores. bypassed: a class of node that is skipped, as Ctrl+B does in the
    editor. student: weights for the loading node of that title instead of the embedded ones.
    """

    name: str
    values: Mapping[str, float] = field(default_factory=dict)
    bypassed: str | None = None
    student: OwnStudent | None = None

    def changes(self) -> Changes:
        """As the command line's --scale, --embedded and --set."""
        chosen = (f"{self.student.loader}.weights={self.student.choice}",) if self.student else ()
        return Changes(sets=chosen, values=self.values, embedded=True)


@contextmanager
def workflow_restorer(workflow: Workflow) -> Iterator[Restorer]:
    """Restores pictures by that workflow, as `kintsugi run` would on this machine's best device; what it loads is loaded once."""
    with TemporaryDirectory() as place:
        folders = Folders(*(Path(place) / name for name in ("input", "output", "temp", "models")))
        folders.input.mkdir()
        if workflow.student:
            (folders.models / "kintsugi").mkdir(parents=True)
            (folders.models / "kintsugi" / workflow.student.method).symlink_to(workflow.student.file.parent.resolve())
        with command_line_host(HostOptions(), folders):
            runner = WorkflowRunner(_prepared(workflow, Path(place)), workflow.changes())
            loader = only_loader(runner.prompt, picture_inputs(runner.prompt, runner.registry))
            yield lambda picture: _restored(runner, loader, picture, folders)


def _prepared(workflow: Workflow, folder: Path) -> Path:
    """The workflow's file, or a copy with some nodes bypassed."""
    path = find_workflow(workflow.name)
    if workflow.bypassed is None:
        return path
    document = json.loads(path.read_text(encoding="utf-8"))
    for node in document["nodes"]:
        if node["type"] == workflow.bypassed:
            node["mode"] = BYPASS
    copy = folder / path.name
    copy.write_text(json.dumps(document), encoding="utf-8")
    return copy


def _restored(runner: WorkflowRunner, loader: str, picture: Picture, folders: Folders) -> Picture:
    """The one picture that the workflow writes."""
    path = folders.input / f"{len(list(folders.input.iterdir()))}.png"
    Image.fromarray(picture).save(path)
    (written,) = runner.run({loader: path}, folders).files
    with Image.open(written) as image:
        return np.asarray(image.convert("RGB"))
