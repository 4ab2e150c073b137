"""Fetching is tested against a small hub on this machine: the same requests, no network."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants as hub_constants
import pytest
import torch
from kintsugi.core.errors import FileAccessError, WeightsError
from kintsugi.core.weights.catalogue import RELEASES, Release, ReleaseFile, find_release
from kintsugi.core.weights.fetch import fetch_release, read_records
from safetensors.torch import load_file, save

COMMIT = "c" * 40
RELEASE = Release(
    name="tiny",
    what="three files",
    licence="MIT",
    page="https://example.org/tiny",
    repository="someone/tiny",
    files=(
        ReleaseFile("model.safetensors", "kintsugi/tiny/model.safetensors"),
        ReleaseFile("config.json", "kintsugi/tiny/config.json"),
        ReleaseFile("extra.pt", "kintsugi/tiny/extra.safetensors"),
    ),
)


def _pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer)
    return buffer.getvalue()


class Hub(BaseHTTPRequestHandler):
    """The answers of the hub that the client needs: a model's listing and its files, with ranges for resuming."""

    files: dict[str, bytes] = {}
    damaged = False
    ranges: list[str] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        if "/api/" not in self.path:
            return self._answer(body=True)
        siblings = [self._sibling(name, data) for name, data in self.files.items()]
        data = json.dumps({"id": "someone/tiny", "modelId": "someone/tiny", "sha": COMMIT, "siblings": siblings}).encode()
        self._send(200, data, {"Content-Type": "application/json"})

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": _git_blob(data)}
        if not name.endswith(".json"):
            entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _answer(self, body: bool) -> None:
        data = self.files[self.path.partition(f"/{COMMIT}/")[2]]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        sent = data[:-1] + b"?" if self.damaged else data
        wanted = self.headers.get("Range")
        if wanted and body:
            self.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(sent) - 1}/{len(sent)}"
            return self._send(206, sent[start:], headers)
        self._send(200, sent, headers, body)

    def _send(self, status: int, data: bytes, headers: dict[str, str], body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


def _git_blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.files = {"model.safetensors": save({"a": torch.arange(5.0)}), "config.json": b"{}", "extra.pt": _pickle()}
    Hub.damaged, Hub.ranges = False, []
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_constants, "ENDPOINT", address)
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_release_arrives_checked_converted_and_recorded(hub: type[Hub], tmp_path: Path) -> None:
    paths = fetch_release(RELEASE, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [file.target for file in RELEASE.files]
    assert torch.equal(load_file(paths[0])["a"], torch.arange(5.0))
    assert paths[1].read_bytes() == b"{}"
    assert torch.equal(load_file(paths[2])["w"], torch.ones(3))
    record = read_records(tmp_path)["tiny"]
    assert (record["repository"], record["revision"]) == ("someone/tiny", COMMIT)
    assert record["files"]["kintsugi/tiny/extra.safetensors"]["sha256"] == hashlib.sha256(hub.files["extra.pt"]).hexdigest()  # type: ignore[index]
    everything = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert everything == {file.target for file in RELEASE.files} | {"kintsugi/fetched.json"}


def test_a_second_fetch_keeps_what_is_there(hub: type[Hub], tmp_path: Path) -> None:
    times = [path.stat().st_mtime_ns for path in fetch_release(RELEASE, tmp_path)]
    said: list[str] = []
    assert [path.stat().st_mtime_ns for path in fetch_release(RELEASE, tmp_path, say=said.append)] == times
    assert all("there already" in line for line in said)


def test_a_damaged_download_is_thrown_away(hub: type[Hub], tmp_path: Path) -> None:
    hub.damaged = True
    with pytest.raises(WeightsError, match="checksum"):
        fetch_release(RELEASE, tmp_path)
    assert not list(tmp_path.rglob("model.safetensors"))
    hub.damaged = False
    assert len(fetch_release(RELEASE, tmp_path)) == 3


def test_a_file_put_there_by_hand_is_not_replaced(hub: type[Hub], tmp_path: Path) -> None:
    own = tmp_path / "kintsugi/tiny/model.safetensors"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(FileAccessError, match="not fetched by us"):
        fetch_release(RELEASE, tmp_path)
    assert own.read_text() == "mine"


def test_a_file_the_hub_does_not_have_is_named(hub: type[Hub], tmp_path: Path) -> None:
    del hub.files["extra.pt"]
    with pytest.raises(WeightsError, match=r"has no extra\.pt"):
        fetch_release(RELEASE, tmp_path)


def test_a_star_takes_every_file_of_a_folder_that_fits(hub: type[Hub], tmp_path: Path) -> None:
    parts = ReleaseFile("part/*.safetensors", "diffusers/tiny/part/*.safetensors")
    release = replace(RELEASE, files=(parts, ReleaseFile("config.json", "diffusers/tiny/config.json")))
    with pytest.raises(WeightsError, match=r"has no part/\*\.safetensors"):
        fetch_release(release, tmp_path)
    assert not parts.is_in(tmp_path)
    hub.files |= {f"part/{name}.safetensors": save({name: torch.zeros(1)}) for name in "ab"}
    paths = fetch_release(release, tmp_path)
    assert [path.relative_to(tmp_path / "diffusers/tiny").as_posix() for path in paths] == [
        "part/a.safetensors", "part/b.safetensors", "config.json",
    ]  # fmt: skip
    assert parts.is_in(tmp_path) and list(load_file(paths[1])) == ["b"]


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"InstantX/InstantIR: cannot be fetched.*goes on where it stopped"):
        fetch_release(find_release("instantir"), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("release", [release for release in RELEASES if release.repository is None], ids=lambda release: release.name)
def test_a_release_that_is_not_on_the_hub_says_where_it_is(release: Release, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not published on the hub"):
        fetch_release(release, tmp_path)


def test_an_unknown_release_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="instantir, "):
        find_release("nonsense")


def test_every_release_lands_inside_the_models_tree_as_something_nodes_load() -> None:
    targets = [file.target for release in RELEASES for file in release.files]
    assert len(set(targets)) == len(targets)
    assert all(target.endswith((".safetensors", ".json", "spiece.model", "merges.txt")) and ".." not in target for target in targets)
