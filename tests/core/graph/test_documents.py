"""Workflows are found wherever people keep them, and everything else is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kintsugi.core.errors import FileAccessError, KintsugiError, WorkflowError
from kintsugi.core.graph.documents import read_workflow
from kintsugi.core.imaging.writing import write_photo
from PIL import Image
from PIL.PngImagePlugin import PngInfo

PROMPT = {"1": {"class_type": "Number", "inputs": {"value": 1}, "_meta": {"title": "ä"}}}
WORKFLOW = {"nodes": [], "links": [], "version": 0.4}


def test_both_json_formats_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "ui.json").write_text(json.dumps(WORKFLOW))
    (tmp_path / "api.json").write_text(json.dumps(PROMPT), encoding="utf-8-sig")
    ui, api = read_workflow(tmp_path / "ui.json"), read_workflow(tmp_path / "api.json")
    assert (ui.workflow, ui.prompt) == (WORKFLOW, None) and (api.workflow, api.prompt) == (None, PROMPT)


@pytest.mark.parametrize("chunk", ["add_text", "add_itxt"])
def test_png_carries_both_in_text_chunks(tmp_path: Path, chunk: str) -> None:
    texts = PngInfo()
    getattr(texts, chunk)("prompt", json.dumps(PROMPT))
    getattr(texts, chunk)("workflow", json.dumps(WORKFLOW))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=texts)
    document = read_workflow(tmp_path / "a.png")
    assert document.prompt == PROMPT and document.workflow == WORKFLOW and document.source.endswith("a.png")


@pytest.mark.parametrize("suffix", ["webp", "jpg"])
def test_exif_carries_both_in_texts_with_a_name_in_front(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0110] = f"prompt:{json.dumps(PROMPT)}"
    exif[0x010F] = f"workflow:{json.dumps(WORKFLOW)}"
    exif[0x010E] = "a description: not JSON"
    Image.new("RGB", (4, 4)).save(tmp_path / f"a.{suffix}", exif=exif)
    document = read_workflow(tmp_path / f"a.{suffix}")
    assert document.prompt == PROMPT and document.workflow == WORKFLOW


@pytest.mark.parametrize("suffix", ["jpg", "tif", "avif", "webp", "png"])
def test_what_a_saved_photo_carries_is_found_again(tmp_path: Path, suffix: str) -> None:
    texts = {"prompt": json.dumps(PROMPT), "workflow": json.dumps(WORKFLOW)}
    write_photo(tmp_path / f"a.{suffix}", torch.rand(1, 8, 8, 3), metadata=texts)
    document = read_workflow(tmp_path / f"a.{suffix}")
    assert document.prompt == PROMPT and document.workflow == WORKFLOW


@pytest.mark.parametrize("comment", [b"ASCII\0\0\0a holiday", b"ASCII\0\0\0[1]", b"UNICODE\0x", b""])
def test_a_user_comment_of_another_kind_is_no_workflow(tmp_path: Path, comment: bytes) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: comment}
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(WorkflowError, match="carries no workflow"):
        read_workflow(tmp_path / "a.jpg")


def test_picture_with_the_workflow_only_is_enough(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("workflow", json.dumps(WORKFLOW))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=texts)
    assert read_workflow(tmp_path / "a.png").prompt is None


def test_malformed_json_is_told_with_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"nodes": [\n  1,,\n]}')
    with pytest.raises(WorkflowError, match=r"a\.json: is not valid JSON: .* at line 2, column 5"):
        read_workflow(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"[]", b"3", b'{"a": 1}', b"{}", b'{"nodes": 3}', b'{"1": {"inputs": {}}}'])
def test_other_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(WorkflowError, match="neither a workflow"):
        read_workflow(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe\x00\x80", b"\x89PNG\r\n\x1a\n\0\0", b"[" * 200_000, b'{"a":' * 100_000])
def test_rubbish_is_refused_with_the_file_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(WorkflowError, match=r"a\.bin"):
        read_workflow(tmp_path / "a.bin")


def test_picture_without_workflow_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(WorkflowError, match="carries no workflow"):
        read_workflow(tmp_path / "a.png")


def test_picture_with_malformed_prompt_names_the_chunk(tmp_path: Path) -> None:
    texts = PngInfo()
    texts.add_text("prompt", "{oops")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=texts)
    with pytest.raises(WorkflowError, match=r"a\.png \(prompt\): is not valid JSON"):
        read_workflow(tmp_path / "a.png")


def test_missing_file_is_a_file_access_error(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="No such file"):
        read_workflow(tmp_path / "no.json")


@pytest.mark.parametrize("cut", range(0, 200, 9))
def test_png_cut_anywhere_is_read_or_refused_never_a_crash(tmp_path: Path, cut: int) -> None:
    texts = PngInfo()
    texts.add_text("prompt", json.dumps(PROMPT))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=texts)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:cut])
    try:
        assert read_workflow(tmp_path / "a.png").prompt == PROMPT
    except KintsugiError as error:
        assert "a.png" in str(error)
