"""`kintsugi models list|check|fetch`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import console
from ..options import AsJson, ExtraModelPaths, HostOptions, ModelsDirectory

EXAMPLE = "Example: kintsugi models check"

models = typer.Typer(no_args_is_help=True, help="List, check and fetch weights.")


@models.command("list", epilog="Example: kintsugi models list --json")
def list_models(as_json: AsJson = False, models_directory: ModelsDirectory = None, extra_model_paths: ExtraModelPaths = None) -> None:
    """List the published weights, which of them are here, and the embedded ones."""
    from ...core.weights import embedded
    from ...core.weights.catalogue import RELEASES

    folders = _folders(models_directory, extra_model_paths)
    rows = [
        {**asdict(release), "present": sum(file.is_in(folders.models) for file in release.files), "of": len(release.files)}
        for release in RELEASES
    ]
    own = sorted(path.name for path in embedded.FOLDER.glob("*.safetensors"))
    if as_json:
        console.say_json({"models_directory": folders.models, "embedded": own, "releases": rows})
        return
    console.say(f"Models folder: {folders.models}")
    console.say(f"Embedded: {', '.join(own) or 'none'}")
    console.say()
    console.say_table(("name", "here", "licence", "what", "where"), [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    here = f"{row['present']}/{row['of']}" if row["repository"] else "-"
    return row["name"], here, row["licence"], row["what"], row["page"]


@models.command("check", epilog="Example: kintsugi models check --models-directory ~/ComfyUI/models")
def check(as_json: AsJson = False, models_directory: ModelsDirectory = None, extra_model_paths: ExtraModelPaths = None) -> None:
    """Read the header of every safetensors file; exit 1 when one is damaged. Pickles are named with the way out.

    Then tells what each one-step method holds in memory, as published and as it is run here: merged and folded.
    """
    from ...core.errors import WeightsError
    from ...core.weights.inspection import describe_weights

    folders = _folders(models_directory, extra_model_paths)
    files, pickles = _all_files(folders)
    described: list[dict[str, Any]] = []
    for path in files:
        try:
            described.append({"path": path, **asdict(describe_weights(path)), "error": None})
        except WeightsError as error:
            described.append({"path": path, "error": str(error)})
    damaged = [entry for entry in described if entry["error"]]
    memory = _memory(folders, [entry["path"] for entry in damaged])
    if as_json:
        console.say_json({"files": described, "pickles": pickles, "memory": memory})
    else:
        _say_check([entry for entry in described if not entry["error"]], pickles)
        _say_memory(memory)
        for entry in damaged:
            console.complain(entry["error"])
        console.say(f"{len(described) - len(damaged)} good, {len(damaged)} damaged, {len(pickles)} pickles.")
    if damaged:
        raise typer.Exit(1)


def _all_files(folders: Any) -> tuple[list[Path], list[Path]]:
    """Safetensors files and pickles below every models folder, and the embedded files."""
    from ...core.weights import embedded
    from ...core.weights.locations import KINDS, PICKLE_SUFFIXES, SAFETENSORS_SUFFIXES, files_below

    kinds = dict.fromkeys((*KINDS, *folders.model_paths))
    places = dict.fromkeys([embedded.FOLDER, *(folder for kind in kinds for folder in folders.of_models(kind))])
    files = dict.fromkeys(path for place in places for path in files_below(place, SAFETENSORS_SUFFIXES))
    pickles = dict.fromkeys(path for place in places for path in files_below(place, PICKLE_SUFFIXES))
    return list(files), list(pickles)


def _say_check(good: list[dict[str, Any]], pickles: list[Path]) -> None:
    rows = [
        (
            str(entry["path"]),
            str(entry["tensors"]),
            f"{entry['parameters']:,}",
            "+".join(entry["dtypes"]) or "-",
            console.human_size(entry["size"]),
            ", ".join(entry["metadata"]) or "-",
        )
        for entry in good
    ]
    console.say_table(("file", "tensors", "parameters", "dtype", "size", "metadata"), rows)
    for path in pickles:
        console.say(f"{path} is a pickle, which no node loads: kintsugi convert {path.name} {path.with_suffix('.safetensors').name}")


def _memory(folders: Any, damaged: list[Path]) -> list[dict[str, Any]]:
    from ...core.runtime import LocalHost, using_host
    from ...core.weights.memory import method_memories

    with using_host(LocalHost(folders=folders)):
        return [asdict(memory) for memory in method_memories(damaged)]


def _say_memory(memory: list[dict[str, Any]]) -> None:
    console.say()
    rows = [
        (
            entry["method"],
            entry["weights"],
            entry["dtype"],
            console.human_size(entry["as_published"]),
            console.human_size(entry["as_we_run_it"]),
            f"{1 - entry['as_we_run_it'] / entry['as_published']:.0%}",
        )
        for entry in memory
    ]
    console.say_table(("network of", "weights", "dtype", "as published", "merged, folded", "saved"), rows)
    console.say()


@models.command("fetch", epilog="Example: kintsugi models fetch instantir")
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A release of `kintsugi models list`.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit; default that of the first fetch.")] = None,
    models_directory: ModelsDirectory = None,
) -> None:
    """Download a release into the models folder: resumable, checked, pickles converted. The only command that uses the network."""
    from ...core.weights.catalogue import find_release
    from ...core.weights.fetch import fetch_release

    release = find_release(name)
    console.say(f"{release.what}. Licence: {release.licence}, see {release.page}")
    for path in fetch_release(release, _folders(models_directory, None).models, revision, console.say):
        console.say(str(path))


def _folders(models_directory: Path | None, extra_model_paths: list[Path] | None) -> Any:
    from ..host import chosen_folders

    return chosen_folders(HostOptions(models_directory=models_directory, extra_model_paths=extra_model_paths or []), None, Path.cwd())
