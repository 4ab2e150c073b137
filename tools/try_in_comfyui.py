"""Try the pack in a real ComfyUI: it loads, lists its nodes as `kintsugi nodes` does, gives the pictures of `kintsugi run`, and behaves.

    python tools/try_in_comfyui.py --comfy TREE --venv VENV [--folder-name NAME] [--input DIR] [--checks NAME ...] [WORKFLOW.json ...]

TREE is a checkout of ComfyUI, VENV an environment with its requirements and ours. Both sides run copies of this checkout with that
environment's Python on the CPU; the server listens on loopback alone. Without workflows those of `workflows/` run. Checks:

    nodes      no pack fails to import, and both sides tell the same of every node
    options    dtypes, previews, metadata and extra_model_paths.yaml reach our host
    latents    VAE Encode and VAE Decode read ours and ours read theirs
    memory     ten runs leave nothing behind; what /free takes comes back, with the same pictures
    cancel     an interrupted run ends within a step or a tile
    pictures   every workflow gives the pictures of `kintsugi run`, to the bit

Exit code 1 when something differs.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from comfyui_behaviour import (
    FLAGS,
    LATENT_KINDS,
    TOLD,
    UNTOLD,
    cancelled,
    changed,
    extra_paths,
    import_faults,
    interchanged,
    leftovers,
    make_vaes,
    prompt_of,
    released,
    told,
)  # fmt: skip
from comfyui_comparison import compare_nodes, compare_workflow
from comfyui_server import PROBE, ROOT, Place, Server, TrialError, comfyui, copy_checkout

CHECKS = ("nodes", "options", "latents", "memory", "cancel", "pictures")
WORKFLOWS = ROOT / "workflows"
# Restored in many tiles, and in as many steps as it has.
TILED, STEPPED = WORKFLOWS / "restore_photo.json", WORKFLOWS / "instantir.json"

Check = tuple[str, Callable[[], list[str]]]


def report(name: str, compare: Callable[[], list[str]]) -> bool:
    """Run one comparison and say what came of it; whether both sides agree."""
    try:
        differences = compare()
    except (TrialError, OSError) as error:
        differences = [str(error)]
    sys.stdout.write("\n  ".join([f"{name}: {'differs' if differences else 'same'}", *differences]) + "\n")
    sys.stdout.flush()
    return not differences


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfy", type=Path, required=True, metavar="TREE", help="checkout of ComfyUI, 0.3.64 or newer")
    parser.add_argument("--venv", type=Path, required=True, help="environment with ComfyUI's requirements and ours")
    parser.add_argument("--folder-name", default="Kintsugi", metavar="NAME", help="the pack's folder in custom_nodes")
    parser.add_argument("--input", type=Path, metavar="DIR", help="where the workflows' pictures lie; default TREE/input")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=CHECKS, metavar="NAME", help="some of the checks alone")
    parser.add_argument("workflows", type=Path, nargs="*", metavar="WORKFLOW.json")
    return parser.parse_args()


def checks_of_one_server(server: Server, python: Path, place: Place, names: list[str], workflows: list[Path]) -> Iterator[Check]:
    """Every check that needs no options of its own."""
    if "nodes" in names:
        yield "imports", partial(import_faults, server)
        yield "nodes", partial(compare_nodes, server, python, place)
    if "options" in names:
        yield "without options", partial(told, server, UNTOLD)
    if "latents" in names:
        make_vaes(python, place)
        for configuration in LATENT_KINDS:
            yield f"latents of {configuration}", partial(interchanged, server, place, configuration)
    if "memory" in names:
        prompt = prompt_of(python, place, TILED)
        yield "ten runs", partial(leftovers, server, prompt)
        yield "memory", partial(released, server, place, prompt)
    if "cancel" in names:
        yield "cancel in steps", partial(cancelled, server, prompt_of(python, place, STEPPED), 3)
        yield "cancel in tiles", partial(cancelled, server, changed(prompt_of(python, place, TILED), tile=64, scale=4), 3)
    if "pictures" in names:
        yield from ((path.name, partial(compare_workflow, server, python, place, path)) for path in workflows)


def run_checks(comfy: Path, python: Path, place: Place, names: list[str], workflows: list[Path]) -> list[bool]:
    """Whether each of them found both sides to agree."""
    agreed = []
    if "options" in names:
        yaml, disk = extra_paths(place)
        with comfyui(comfy, python, place, (*FLAGS, "--extra-model-paths-config", str(yaml))) as server:
            agreed.append(report("options", partial(told, server, TOLD, disk)))
    with comfyui(comfy, python, place) as server:
        for name, check in checks_of_one_server(server, python, place, names, workflows):
            agreed.append(report(name, check))
    return agreed


def main() -> int:
    arguments = parsed_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))  # So that the server is stopped too.
    python = arguments.venv.absolute() / "bin" / "python"
    workflows = [path.resolve() for path in arguments.workflows] or sorted(WORKFLOWS.glob("*.json"))
    with tempfile.TemporaryDirectory(prefix="kintsugi-in-comfyui-") as temporary:
        place = Place(Path(temporary), Path(temporary).resolve() / "pictures")
        shutil.copytree(arguments.input or arguments.comfy / "input", place.inputs)
        copy_checkout(place.library / "kintsugi")
        copy_checkout(place.base / "custom_nodes" / arguments.folder_name)
        shutil.copytree(ROOT / "tools" / PROBE, place.base / "custom_nodes" / PROBE)
        try:
            agreed = run_checks(arguments.comfy.resolve(), python, place, list(arguments.checks), workflows)
        except TrialError as error:
            sys.exit(str(error))
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
