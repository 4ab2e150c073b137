"""Try the pack in a real ComfyUI: it loads, lists its nodes as `kintsugi nodes` does, and gives the pictures of `kintsugi run`.

    python tools/try_in_comfyui.py --comfy TREE --venv VENV [--folder-name NAME] [--input DIR] [WORKFLOW.json ...]

TREE is a checkout of ComfyUI, VENV an environment with its requirements and ours. Both sides run copies of this checkout with that
environment's Python on the CPU; the server listens on loopback alone. Without workflows those of `workflows/` run. Exit code 1
when something differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BOOT_SECONDS, PROMPT_SECONDS = 600, 1800
# What each side fills in for itself, and what older servers do not send.
HOST_FIELDS = ("python_module", "search_aliases")


class TrialError(Exception):
    """One of the two sides could not do what it was asked."""


@dataclass(frozen=True)
class Place:
    """Everything one trial reads and writes: the two copies, the input pictures and the results of both sides."""

    folder: Path
    inputs: Path

    @property
    def library(self) -> Path:
        """What PYTHONPATH names, so that `library/kintsugi` is the package."""
        return self.folder / "library"

    @property
    def base(self) -> Path:
        """ComfyUI's base folder, with models and custom_nodes."""
        return self.folder / "base"

    @property
    def theirs(self) -> Path:
        return self.folder / "comfyui"

    @property
    def ours(self) -> Path:
        return self.folder / "headless"


def copy_checkout(destination: Path) -> None:
    """The files that git tracks or would add, as plain files: what a release archive holds."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, destination / name)


class Server:
    """A running ComfyUI."""

    def __init__(self, url: str, log: Path) -> None:
        self.url, self.log = url, log

    def call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None = None, client: str = "") -> str:
        """The id under which the prompt runs. The workflow travels along as the editor sends it, for the pictures to carry."""
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        try:
            return str(self.call("/prompt", {"prompt": prompt, "extra_data": extra, "client_id": client})["prompt_id"])
        except urllib.error.HTTPError as refusal:
            raise TrialError(f"ComfyUI refused the prompt: {refusal.read().decode()}") from refusal

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """The prompt's entry in the history, once it has ended."""
        ends = time.monotonic() + PROMPT_SECONDS
        while time.monotonic() < ends:
            history = self.call(f"/history/{prompt_id}")
            if prompt_id in history:
                return dict(history[prompt_id])
            time.sleep(0.2)
        raise TrialError(f"ComfyUI did not finish in {PROMPT_SECONDS} s; its log: {self.log}")


@contextmanager
def comfyui(tree: Path, python: Path, place: Place, options: Iterable[str] = ()) -> Iterator[Server]:
    """ComfyUI with what lies in `place.base/custom_nodes`, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = place.folder / "server.log"
    command = [
        python, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", port, "--base-directory", place.base,
        "--input-directory", place.inputs, "--output-directory", place.theirs, "--temp-directory", place.folder,
        "--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:", *options,
    ]  # fmt: skip
    with log.open("w") as stream:
        process = subprocess.Popen(list(map(str, command)), cwd=tree, stdout=stream, stderr=stream)
    try:
        server = Server(f"http://127.0.0.1:{port}", log)
        _await_start(server, process)
        yield server
    finally:
        process.terminate()
        process.wait()


def _await_start(server: Server, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + BOOT_SECONDS
    while process.poll() is None and time.monotonic() < ends:
        try:
            server.call("/system_stats")
            return
        except OSError:
            time.sleep(0.3)
    raise TrialError(f"ComfyUI did not start:\n{server.log.read_text()[-3000:]}")


def kintsugi(python: Path, place: Place, *arguments: object) -> Any:
    """The JSON that a command of the headless copy prints; it runs in `place.folder`."""
    command = [str(python), "-m", "kintsugi", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(place.library)}
    done = subprocess.run(command, cwd=place.folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise TrialError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def compare_nodes(server: Server, python: Path, place: Place) -> list[str]:
    """Both sides' account of our nodes, with the same pictures in the folder that Load Photo lists."""
    (place.folder / "input").symlink_to(place.inputs, target_is_directory=True)
    return node_differences(kintsugi(python, place, "nodes", "--json"), server.call("/object_info"))


def node_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """How two answers of /object_info differ on our nodes, a line each."""
    lines = []
    for name in (name for name in ours if name.startswith("Kintsugi")):
        if name not in theirs:
            lines.append(f"{name} is not in ComfyUI.")
            continue
        fields = sorted((set(ours[name]) | set(theirs[name])) - set(HOST_FIELDS))
        differing = [field for field in fields if ours[name].get(field) != theirs[name].get(field)]
        lines += [f"{name}.{field}: {ours[name].get(field)!r}, in ComfyUI {theirs[name].get(field)!r}" for field in differing]
    return lines


def compare_workflow(server: Server, python: Path, place: Place, workflow: Path) -> list[str]:
    """What differs between the pictures of `kintsugi run` and those of ComfyUI for the same prompt."""
    arguments = ("run", workflow, "--cpu", "--input-directory", place.inputs)
    prompt = kintsugi(python, place, *arguments, "--print-prompt")
    document = json.loads(workflow.read_text(encoding="utf-8"))
    for folder in (place.ours, place.theirs):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    kintsugi(python, place, *arguments, "-o", place.ours, "--json")
    status = server.wait(server.queue(prompt, document if "nodes" in document else None))["status"]
    if status["status_str"] != "success":
        raise TrialError(f"ComfyUI failed: {json.dumps(status['messages'][-1])}")
    return folder_differences(place.ours, place.theirs)


def folder_differences(ours: Path, theirs: Path) -> list[str]:
    """Files that only one side wrote, and pictures that are not the same, a line each."""
    left, right = ({str(path.relative_to(folder)): path for path in folder.rglob("*.*")} for folder in (ours, theirs))
    if not left and not right:
        return ["no side wrote a picture"]
    lines = [f"{name} was written by one side alone" for name in sorted(set(left) ^ set(right))]
    found = ((name, picture_difference(left[name], right[name])) for name in sorted(set(left) & set(right)))
    return lines + [f"{name}: {difference}" for name, difference in found if difference]


def picture_difference(ours: Path, theirs: Path) -> str | None:
    """In words how two picture files differ; None when their pixels are the same."""
    if ours.read_bytes() == theirs.read_bytes():
        return None
    with Image.open(ours) as left, Image.open(theirs) as right:
        if (left.size, left.mode) != (right.size, right.mode):
            return f"{left.size} {left.mode}, in ComfyUI {right.size} {right.mode}"
        levels = np.abs(np.asarray(left).astype(np.int64) - np.asarray(right).astype(np.int64))
    return f"{np.count_nonzero(levels)} values differ, by {levels.max()} at most" if levels.any() else None


def report(name: str, compare: Callable[[], list[str]]) -> bool:
    """Run one comparison and say what came of it; whether both sides agree."""
    try:
        differences = compare()
    except TrialError as error:
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
    parser.add_argument("workflows", type=Path, nargs="*", metavar="WORKFLOW.json")
    return parser.parse_args()


def main() -> int:
    arguments = parsed_arguments()
    python = arguments.venv.absolute() / "bin" / "python"
    workflows = [path.resolve() for path in arguments.workflows] or sorted((ROOT / "workflows").glob("*.json"))
    with tempfile.TemporaryDirectory(prefix="kintsugi-in-comfyui-") as temporary:
        place = Place(Path(temporary), (arguments.input or arguments.comfy / "input").resolve())
        copy_checkout(place.library / "kintsugi")
        copy_checkout(place.base / "custom_nodes" / arguments.folder_name)
        try:
            with comfyui(arguments.comfy.resolve(), python, place) as server:
                agreed = [report("nodes", partial(compare_nodes, server, python, place))]
                agreed += [report(path.name, partial(compare_workflow, server, python, place, path)) for path in workflows]
        except TrialError as error:
            sys.exit(str(error))
    return 0 if all(agreed) else 1


if __name__ == "__main__":
    sys.exit(main())
