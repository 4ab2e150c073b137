"""`kintsugi restore`: photos through a workflow, each result under the name the person gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.errors import BadValueError, FileAccessError, KintsugiError, PictureError
from ..core.folders import Folders
from ..core.imaging.photo import SUFFIXES, format_of
from ..core.runtime import current_host
from .changes import only_loader, picture_inputs
from .results import final_names, move_all, output_stems, picture_size, refuse_existing, staging_folder
from .run import WorkflowRunner


@dataclass(frozen=True)
class Task:
    """A photo, its name in the prompt, and the folder and stem of its result; `exact` when the person named the file itself."""

    photo: Path
    name: str
    folder: Path
    stem: str
    exact: Path | None = None


@dataclass(frozen=True)
class Restored:
    """What became of one photo: its results with the first one's size in pixels, or the error."""

    photo: Path
    outputs: list[Path]
    width: int
    height: int
    seconds: float
    error: str | None = None


def plan(photos: Sequence[Path], out: str) -> list[Task]:
    """Where each photo's result goes: OUT is a file for a single photo, and a folder for several, or when it ends in /.

    Raises FileAccessError for a folder among the photos and BadValueError for a file ending that cannot be written.
    """
    photos = list(dict.fromkeys(photos))
    for photo in photos:
        if photo.is_dir():
            raise FileAccessError("is a folder.", where=str(photo), way_out="For folders use: kintsugi batch WORKFLOW IN_DIR OUT_DIR")
    target = Path(out)
    if len(photos) == 1 and not out.endswith(("/", "\\")) and not target.is_dir():
        if not target.suffix:
            raise BadValueError("has no picture ending.", where=out, way_out=f"Name a file (as {out}.png), or a folder as {out}/")
        format_of(target)
        return [Task(photos[0], photos[0].name, target.parent, target.stem, exact=target)]
    if target.is_file():
        raise FileAccessError("is a file, but several photos need a folder.", where=out, way_out="Name a folder.")
    stems = output_stems([photo.name for photo in photos])
    # A name of its own for each in the prompt, so that no two photos look alike to the cache of results.
    return [Task(photo, f"{stem}{photo.suffix}", target, stem) for photo, stem in zip(photos, stems, strict=True)]


def expected_output(task: Task) -> Path:
    """The name that the result will most probably have: a saved photo keeps its own format."""
    if task.exact:
        return task.exact
    suffix = task.photo.suffix if task.photo.suffix.lower() in SUFFIXES else ".png"
    return task.folder / (task.stem if task.stem.endswith(suffix) else task.stem + suffix)


def restore_photos(
    runner: WorkflowRunner, tasks: Sequence[Task], folders: Folders, overwrite: bool, report: Callable[[Restored], None]
) -> list[Restored]:
    """Every task in order, one report each; a photo that fails never stops the others.

    Raises before the first photo when the workflow loads no single picture or a result exists that may not be replaced.
    """
    loader = only_loader(runner.prompt, picture_inputs(runner.prompt, runner.registry))
    refuse_existing(map(expected_output, tasks), overwrite)
    progress = current_host().progress(len(tasks), "Photos")
    results = []
    for task in tasks:
        result = _restore_one(runner, loader, task, folders, overwrite)
        report(result)
        results.append(result)
        progress.advance()
    return results


def _restore_one(runner: WorkflowRunner, loader: str, task: Task, folders: Folders, overwrite: bool) -> Restored:
    try:
        with staging_folder(task.folder) as staging:
            granting = replace(folders, granted={task.name: task.photo.resolve()})
            result = runner.run_into(staging, {loader: task.photo}, granting)
            outputs = _names(task, result.files)
            move_all(result.files, outputs, overwrite)
        return Restored(task.photo, outputs, *picture_size(outputs[0]), round(result.seconds, 2))
    except KintsugiError as error:
        return Restored(task.photo, [], 0, 0, 0.0, _about(task.photo, error))


def _about(photo: Path, error: KintsugiError) -> str:
    return str(error) if str(photo) in str(error) else f"{photo}: {error}"


def _names(task: Task, written: list[Path]) -> list[Path]:
    if not written:
        raise PictureError("the workflow saved no picture.", where=str(task.photo), way_out="Use one with a Save Photo or Save Image node.")
    if task.exact and format_of(written[0]) != format_of(task.exact):
        raise BadValueError(
            f"the workflow writes {written[0].suffix} files only.",
            where=str(task.exact),
            way_out=f"Name it {task.exact.with_suffix(written[0].suffix).name}, or use a workflow with a Save Photo node.",
        )
    names = final_names((path.suffix for path in written), task.folder, task.stem)
    return [task.exact, *names[1:]] if task.exact else names
