"""`kintsugi degrade`: low-quality versions of picture files, with the parameters beside each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...core.degradation.pipeline import Parameters, degrade, replay
from ...core.degradation.presets import find_preset
from ...core.errors import BadValueError, FileAccessError, KintsugiError
from ...core.file_names import written_whole
from ...core.imaging.photo import SUFFIXES, Photo
from ...core.imaging.reading import read_photo
from ...core.imaging.resize import resize
from ...core.imaging.writing import require_writable, write_photo
from ...core.runtime import current_host


@dataclass(frozen=True)
class Job:
    """One file to degrade, into a picture and, beside it, a .json with its parameters."""

    source: Path
    result: Path
    seed: int

    @property
    def parameters(self) -> Path:
        return self.result.with_suffix(".json")


def degrade_files(
    inputs: list[Path],
    output: Path,
    preset: str = "real-esrgan",
    scale: int = 4,
    seed: int = 0,
    overrides: Mapping[str, object] | None = None,
    replay_file: Path | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Degrade files, or every picture of folders, into `output`; one report entry per picture.

    output: the picture to write where there is one input file and the name ends like a picture's; else a folder that
    gets NAME.png and NAME.json. Picture i, in the order of names, uses seed + i. replay_file: repeat these parameters
    of one picture instead of drawing new ones. A picture that fails has an `error` in its entry and the others go on;
    what makes the whole request impossible raises BadValueError or FileAccessError.
    """
    jobs = plan_jobs(inputs, output, seed)
    recorded = read_parameters(replay_file, len(jobs)) if replay_file else None
    if recorded is None:
        find_preset(preset, dict(overrides or {}))
    progress = current_host().progress(len(jobs), "Degrading")
    report = []
    for job in jobs:
        entry: dict[str, Any] = {"input": str(job.source), "output": str(job.result)}
        try:
            for path in (job.result, job.parameters):
                require_writable(path, overwrite)
            photo = read_photo(job.source)
            pictures = photo.picture.permute(0, 3, 1, 2)
            if recorded is None:
                degraded = degrade(pictures, preset, scale, job.seed, overrides)
                low_quality, parameters = degraded.low_quality, degraded.parameters[0]
            else:
                low_quality, parameters = replay(pictures, [recorded]), recorded
            write_result(job, photo, low_quality, parameters, overwrite)
            entry |= {"parameters": str(job.parameters), "seed": parameters["seed"], "size": [low_quality.shape[3], low_quality.shape[2]]}
        except KintsugiError as error:
            entry["error"] = str(error)
        report.append(entry)
        progress.advance()
    return report


def plan_jobs(inputs: list[Path], output: Path, seed: int) -> list[Job]:
    """What becomes what; raises when there is nothing to do, or two results would have one name."""
    sources = [source for path in inputs for source in pictures_at(path)]
    if len(sources) == 1 and not inputs[0].is_dir() and output.suffix.lower() in SUFFIXES and not output.is_dir():
        return [Job(sources[0], output, seed)]
    if output.is_file():
        raise FileAccessError("this is a file, and there are several pictures to write.", where=str(output), way_out="Name a folder.")
    jobs = [Job(source, output / f"{source.stem}.png", seed + index) for index, source in enumerate(sources)]
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.result in taken:
            raise BadValueError(
                f"{taken[job.result].name} and {job.source.name} would both become {job.result.name}.",
                where=str(job.source.parent),
                way_out="Rename one of them, or degrade them one at a time.",
            )
        taken[job.result] = job.source
    return jobs


def pictures_at(path: Path) -> list[Path]:
    """The file itself, or the pictures of a folder by name."""
    if not path.exists():
        raise FileAccessError("there is no such file or folder.", where=str(path), way_out="Check the path.")
    if not path.is_dir():
        return [path]
    pictures = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES and not entry.name.startswith("."))
    if not pictures:
        raise FileAccessError("no pictures in this folder.", where=str(path), way_out=f"Looked for {', '.join(SUFFIXES)}.")
    return pictures


def read_parameters(path: Path, pictures: int) -> Parameters:
    """What an earlier run wrote beside its one picture; a list of one entry, as the node gives it, is taken as well."""
    if pictures != 1:
        raise BadValueError(
            f"Parameters belong to one picture, and {pictures} were given.", where=str(path), way_out="Replay one at a time."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileAccessError(f"cannot be read ({error.strerror}).", where=str(path), way_out="Check the path.") from None
    except ValueError as error:
        raise BadValueError(f"this is not JSON ({error}).", where=str(path), way_out="Use the .json written beside a picture.") from None
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise BadValueError("this holds no parameters of one picture.", where=str(path), way_out="Use the .json written beside a picture.")
    return content


def write_result(job: Job, photo: Photo, low_quality: Tensor, parameters: Parameters, overwrite: bool) -> None:
    """The picture, its alpha shrunk alike, and its parameters; the parameters last, so that they never lack their picture."""
    height, width = low_quality.shape[-2:]
    alpha = None if photo.alpha is None else resize(photo.alpha[:, None], height, width, "area")[:, 0]
    write_photo(job.result, low_quality.permute(0, 2, 3, 1), alpha, bit_depth=8, overwrite=overwrite)
    with written_whole(job.parameters) as temporary:
        temporary.write_text(json.dumps(parameters, indent=1) + "\n", encoding="utf-8")
