"""A real ComfyUI on this machine's CPU, beside `kintsugi` run with the same environment: what tools/try_in_comfyui.py compares."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BOOT_SECONDS, PROMPT_SECONDS, ANSWER_SECONDS = 1800, 3600, 600
PROBE = "comfyui_probe"


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
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None = None, client: str = "") -> str:
        """The id under which the prompt runs. The workflow travels along as the editor sends it, for the pictures to carry."""
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        try:
            return str(self.call("/prompt", {"prompt": prompt, "extra_data": extra, "client_id": client})["prompt_id"])
        except urllib.error.HTTPError as refusal:
            raise TrialError(f"ComfyUI refused the prompt: {refusal.read().decode()}") from refusal

    def run(self, prompt: Mapping[str, Any], workflow: Mapping[str, Any] | None = None) -> None:
        """Queue it and wait; TrialError when it does not succeed."""
        status = self.wait(self.queue(prompt, workflow))["status"]
        if status["status_str"] != "success":
            raise TrialError(f"ComfyUI failed: {json.dumps(status['messages'][-1])}")

    def probe(self) -> dict[str, Any]:
        """What the test pack tells of the server's process."""
        return dict(self.call("/kintsugi_probe"))

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
        "--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *options,
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
