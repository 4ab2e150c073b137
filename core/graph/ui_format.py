"""The editor's file format, both spellings, as one set of models: version 0.4 (links as arrays) and schema 1 (as objects).

Only what conversion needs is read; ids of nodes and links are strings here, whatever the file has.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from ..errors import WorkflowError
from .socket_types import type_name

ALWAYS, NEVER, BYPASS = 0, 2, 4
INPUT_NODE, OUTPUT_NODE = "-10", "-20"
_LINK_FIELDS = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


def _id_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _without_gaps(value: Any) -> Any:
    """null is an empty list, and null entries, which old files have, are left out."""
    if value is None:
        return []
    return [entry for entry in value if entry is not None] if isinstance(value, list) else value


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _first_two(value: Any) -> Any:
    return value[:2] if isinstance(value, list) else value


Id = Annotated[str, BeforeValidator(_id_text)]
SocketType = Annotated[str, BeforeValidator(type_name)]


class UiLink(BaseModel):
    """target_slot is only an index into the saved inputs; an input's own `link` is what counts."""

    id: Id
    origin_id: Id
    origin_slot: Annotated[int, Field(ge=0)]
    target_id: Id
    target_slot: int

    @model_validator(mode="before")
    @classmethod
    def _from_array(cls, value: Any) -> Any:
        return dict(zip(_LINK_FIELDS, value, strict=False)) if isinstance(value, list) else value


class UiInput(BaseModel):
    """An input socket of a node in the editor's file."""

    name: str
    type: SocketType = "*"
    link: Id | None = None
    widget: dict[str, Any] | None = None


class UiOutput(BaseModel):
    """An output socket."""

    name: str = ""
    type: SocketType = "*"


class UiProperties(BaseModel):
    """search_name: the class's name for searching. proxies: (inner node id, widget) of an instance of older files."""

    search_name: Any = Field(default=None, alias="Node name for S&R")
    proxies: Annotated[list[Annotated[tuple[Id, str], BeforeValidator(_first_two)]], BeforeValidator(_without_gaps)] = Field(
        default=[], alias="proxyWidgets"
    )


class UiNode(BaseModel):
    """A node in the editor's file."""

    id: Id
    type: str
    title: str | None = None
    mode: int = ALWAYS
    inputs: Annotated[list[UiInput], BeforeValidator(_without_gaps)] = []
    outputs: Annotated[list[UiOutput], BeforeValidator(_without_gaps)] = []
    properties: Annotated[UiProperties, BeforeValidator(_or_empty)] = Field(default_factory=UiProperties)
    widgets_values: list[Any] | dict[str, Any] | None = None
    widgets_values_named: dict[str, Any] | None = None

    @property
    def dropped(self) -> bool:
        """Muted or bypassed."""
        return self.mode in (NEVER, BYPASS)


class UiDefinitions(BaseModel):
    """What a file defines for use in its graph."""

    subgraphs: Annotated[list[UiSubgraph], BeforeValidator(_without_gaps)] = []


class UiGraph(BaseModel):
    """A graph in the editor's file."""

    nodes: Annotated[list[UiNode], BeforeValidator(_without_gaps)]
    links: Annotated[list[UiLink], BeforeValidator(_without_gaps)] = []
    definitions: Annotated[UiDefinitions, BeforeValidator(_or_empty)] = Field(default_factory=UiDefinitions)


class UiSubgraph(UiGraph):
    """A reusable inside: links with origin -10 come from `inputs`, links with target -20 feed `outputs`."""

    id: str
    name: str = ""
    inputs: Annotated[list[UiInput], BeforeValidator(_without_gaps)] = []
    outputs: Annotated[list[UiOutput], BeforeValidator(_without_gaps)] = []


UiDefinitions.model_rebuild()


def read_graph(workflow: dict[str, Any]) -> UiGraph:
    """Raises WorkflowError that names the place of every entry that is not as the format wants it."""
    try:
        return UiGraph.model_validate(workflow)
    except ValidationError as error:
        faults = [f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5]]
        raise WorkflowError(
            f"This is not a readable workflow: {'; '.join(faults)}.", way_out="Save it again in the editor, or correct these entries."
        ) from error


def _place(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
