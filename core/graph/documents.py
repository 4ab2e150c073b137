"""Reading a workflow from wherever people keep it: the editor's JSON, a prompt's JSON, or a picture that carries them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..errors import FileAccessError, WorkflowError

_CARRIED = ("prompt", "workflow")
_EXIF_IFD, _USER_COMMENT, _PLAIN_TEXT = 0x8769, 0x9286, b"ASCII\0\0\0"
_WAY_OUT = "Give a workflow or prompt saved by ComfyUI or Kintsugi, or a picture one of them wrote."


@dataclass(frozen=True)
class Document:
    """What was found in one place: at least one of `workflow` (UI format) and `prompt` (API format).

    A picture carries both. The prompt is what made its pixels; the workflow is what the editor shows. They differ when
    values were set for that run only, so running a picture again runs its prompt.
    """

    workflow: dict[str, Any] | None
    prompt: dict[str, Any] | None
    source: str


def read_workflow(path: Path) -> Document:
    """JSON in UI or API format, or a PNG (text chunks), WebP or other picture (EXIF) that carries them.

    Raises FileAccessError when the file cannot be read and WorkflowError, with line and column for malformed JSON, when
    there is no workflow in it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileAccessError(f"cannot be read: {error.strerror}.", where=str(path), way_out=_WAY_OUT) from error
    carried = _carried_by_picture(path)
    if carried is not None:
        return _from_picture(carried, str(path))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkflowError("is neither JSON nor a readable picture.", where=str(path), way_out=_WAY_OUT) from error
    return parse_workflow(_parse_json(text, str(path)), str(path))


def parse_workflow(data: Any, source: str) -> Document:
    """The document that parsed JSON is. Raises WorkflowError when it is in neither format."""
    if isinstance(data, dict) and isinstance(data.get("nodes"), list):
        return Document(data, None, source)
    if isinstance(data, dict) and any(isinstance(node, dict) and "class_type" in node for node in data.values()):
        return Document(None, data, source)
    raise WorkflowError("is JSON, but neither a workflow (no `nodes`) nor a prompt (no `class_type`).", where=source, way_out=_WAY_OUT)


def _parse_json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise WorkflowError(
            f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            where=source,
            way_out="Correct it there, or save the workflow again.",
        ) from error
    except RecursionError as error:
        raise WorkflowError("is nested too deeply to be a workflow.", where=source, way_out=_WAY_OUT) from error


def _carried_by_picture(path: Path) -> dict[str, str] | None:
    """The JSON texts by name (`prompt`, `workflow`) in a picture; None when the file is no picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                texts = {name: picture.info[name] for name in _CARRIED if isinstance(picture.info.get(name), str)}
                exif = picture.getexif()
                return texts or _named_texts(exif.values()) or _commented_texts(exif.get_ifd(_EXIF_IFD).get(_USER_COMMENT))
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WorkflowError(f"is a picture that cannot be read: {error}", where=str(path), way_out=_WAY_OUT) from error


def _named_texts(values: Iterable[Any]) -> dict[str, str]:
    """EXIF texts of the form `name:{json}`."""
    texts = {}
    for value in values:
        name, separator, content = value.partition(":") if isinstance(value, str) else ("", "", "")
        if separator and name.lower() in _CARRIED:
            texts[name.lower()] = content
    return texts


def _commented_texts(comment: Any) -> dict[str, str]:
    """The texts in an EXIF user comment as Save Photo writes it: one JSON object behind the mark of plain text."""
    if not isinstance(comment, bytes) or not comment.startswith(_PLAIN_TEXT):
        return {}
    try:
        texts = json.loads(comment.removeprefix(_PLAIN_TEXT))
    except ValueError:
        return {}
    return {name: texts[name] for name in _CARRIED if isinstance(texts.get(name), str)} if isinstance(texts, dict) else {}


def _from_picture(carried: dict[str, str], source: str) -> Document:
    if not carried:
        raise WorkflowError("This picture carries no workflow.", where=source, way_out=_WAY_OUT)
    parsed = {name: _parse_json(text, f"{source} ({name})") for name, text in carried.items()}
    for name, data in parsed.items():
        document = parse_workflow(data, f"{source} ({name})")
        if getattr(document, name) is None:
            raise WorkflowError(f"The text called {name} is of the other format.", where=source, way_out=_WAY_OUT)
    return Document(parsed.get("workflow"), parsed.get("prompt"), source)
