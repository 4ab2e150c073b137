"""Draw a small graph: nodes as boxes with their sockets, links as curves, in the colours of ComfyUI's canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kintsugi.nodes.catalogue import NODE_CLASS_MAPPINGS
from PIL import Image, ImageDraw, ImageFont

SHARPNESS = 3  # drawn this many times larger, then shrunk: Pillow's lines have no antialiasing
WIDTH, COLUMN_GAP, ROW_GAP, MARGIN = 190, 54, 18, 14
TITLE, ROW, DOT, TEXT = 26, 21, 5, 13
WIDGETS_SHOWN = 6
CANVAS, BOX, HEADER, FIELD, WORDS, QUIET, GOLD = "#202020", "#353535", "#2b2b2b", "#222222", "#e4e4e4", "#a8a8a8", "#d9a441"
SOCKET_COLORS = {"IMAGE": "#64b5f6", "MASK": "#81c784", "LATENT": "#ff9cf9", "CONDITIONING": "#ffa931"}
OTHER_SOCKET = "#9a9a9a"
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN"}

Place = tuple[float, float]


@dataclass(frozen=True)
class Link:
    """From an output of one node to an input of another; nodes by id, sockets by name."""

    source: str
    output: str
    target: str
    input: str

    @classmethod
    def parse(cls, text: str) -> Link:
        """`LoadPhoto.image > RestoreOneStep.image`, the prefix Kintsugi left out."""
        left, right = (end.strip().split(".") for end in text.split(">"))
        return cls(f"Kintsugi{left[0]}", left[1], f"Kintsugi{right[0]}", right[1])


def input_types(node_id: str) -> dict[str, str]:
    """Inputs of a node that a person sees; a combo is a COMBO."""
    sections = NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()
    specs = {**sections.get("required", {}), **sections.get("optional", {})}
    return {name: kind if isinstance(kind, str) else "COMBO" for name, (kind, _) in specs.items()}


def output_types(node_id: str) -> dict[str, str]:
    node: Any = NODE_CLASS_MAPPINGS[node_id]
    return dict(zip(getattr(node, "RETURN_NAMES", ()), node.RETURN_TYPES, strict=True))


def visible_widgets(node_id: str) -> dict[str, str]:
    """Name and default of the widgets that are not collapsed."""
    sections = NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()
    specs = {**sections.get("required", {}), **sections.get("optional", {})}
    return {name: str(options["default"]) for name, (_, options) in specs.items() if "default" in options and not options.get("advanced")}


@dataclass
class Box:
    """A node in the drawing."""

    node_id: str
    column: int
    inputs: list[str]
    outputs: list[str]
    widgets: dict[str, str]
    at: Place = field(default=(0.0, 0.0))

    @property
    def title(self) -> str:
        return NODE_CLASS_MAPPINGS[self.node_id].DISPLAY_NAME.split(" (")[0]

    @property
    def height(self) -> int:
        return TITLE + ROW * (max(len(self.inputs), len(self.outputs)) + len(self.widgets)) + 8

    def socket(self, name: str, is_output: bool) -> Place:
        rows = self.outputs if is_output else self.inputs
        return self.at[0] + WIDTH * is_output, self.at[1] + TITLE + ROW * (rows.index(name) + 0.5) + 3


def boxes_of(node_id: str, links: Sequence[Link]) -> dict[str, Box]:
    """The node with all of its sockets, and its neighbours with those that are linked."""
    nodes = dict.fromkeys([*(end for link in links for end in (link.source, link.target)), node_id])
    boxes = {}
    for name in nodes:
        own = name == node_id
        linked_in, linked_out = ({getattr(link, end) for link in links if getattr(link, side) == name}
                                 for side, end in (("target", "input"), ("source", "output")))  # fmt: skip
        inputs = [key for key, kind in input_types(name).items() if key in linked_in or (own and kind not in {*WIDGET_TYPES, "COMBO"})]
        outputs = [key for key in output_types(name) if own or key in linked_out]
        widgets = {key: text for key, text in visible_widgets(name).items() if own and key not in inputs}
        boxes[name] = Box(name, column(name, links), inputs, outputs, dict(list(widgets.items())[:WIDGETS_SHOWN]))
    return boxes


def column(node_id: str, links: Sequence[Link]) -> int:
    """How many nodes the longest way to it has; a source stands right before what it feeds."""
    before = [column(link.source, links) for link in links if link.target == node_id]
    if before:
        return 1 + max(before)
    after = [column(link.target, [other for other in links if other.source != node_id]) for link in links if link.source == node_id]
    return max(0, min(after, default=0) - 1)


def draw_graph(node_id: str, links: Sequence[Link]) -> Image.Image:
    """The node, outlined in gold, among its neighbours."""
    boxes = boxes_of(node_id, links)
    columns = [[box for box in boxes.values() if box.column == index] for index in range(1 + max(box.column for box in boxes.values()))]
    heights = [sum(box.height + ROW_GAP for box in column) - ROW_GAP for column in columns]
    size = (2 * MARGIN + len(columns) * (WIDTH + COLUMN_GAP) - COLUMN_GAP, 2 * MARGIN + max(heights))
    for index, (members, height) in enumerate(zip(columns, heights, strict=True)):
        top = MARGIN + (max(heights) - height) / 2
        for box in members:
            box.at = (MARGIN + index * (WIDTH + COLUMN_GAP), top)
            top += box.height + ROW_GAP
    canvas = Image.new("RGB", (size[0] * SHARPNESS, size[1] * SHARPNESS), CANVAS)
    pen = Pen(ImageDraw.Draw(canvas))
    for link in links:
        kind = output_types(link.source)[link.output]
        pen.curve(boxes[link.source].socket(link.output, True), boxes[link.target].socket(link.input, False), color(kind))
    for box in boxes.values():
        pen.box(box, GOLD if box.node_id == node_id else "#4a4a4a")
        pen.sockets(box)
    return canvas.resize(size, Image.Resampling.LANCZOS).quantize(128, Image.Quantize.FASTOCTREE)


def color(kind: str) -> str:
    return SOCKET_COLORS.get(kind, OTHER_SOCKET)


class Pen:
    """Draws in the units of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def box(self, box: Box, outline: str) -> None:
        left, top = box.at
        self.rounded(left, top, left + WIDTH, top + box.height, BOX, outline)
        self.rounded(left + 3, top + 3, left + WIDTH - 3, top + TITLE, HEADER, HEADER)
        self.text(left + 10, top + TITLE / 2, box.title, WORDS, "lm", WIDTH - 20)
        first = top + TITLE + ROW * max(len(box.inputs), len(box.outputs)) + 3
        for index, (name, value) in enumerate(box.widgets.items()):
            middle = first + ROW * (index + 0.5)
            self.rounded(left + 10, middle - ROW / 2 + 1, left + WIDTH - 10, middle + ROW / 2 - 1, FIELD, FIELD)
            self.text(left + 18, middle, name, QUIET, "lm", WIDTH / 2)
            self.text(left + WIDTH - 18, middle, value, WORDS, "rm", WIDTH / 2 - 30)

    def sockets(self, box: Box) -> None:
        ends = ((box.inputs, input_types(box.node_id), False), (box.outputs, output_types(box.node_id), True))
        for names, kinds, is_output in ends:
            for name in names:
                x, y = box.socket(name, is_output)
                self.draw.ellipse([(value + side * DOT) * SHARPNESS for side in (-1, 1) for value in (x, y)], fill=color(kinds[name]))
                self.text(x + (-11 if is_output else 11), y, name, QUIET, "rm" if is_output else "lm", WIDTH / 2)

    def curve(self, start: Place, end: Place, stroke: str) -> None:
        """A cubic curve that leaves and arrives horizontally, as the canvas draws links."""
        reach = max(30.0, abs(end[0] - start[0]) / 2)
        corners = (start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)
        points = []
        for step in range(41):
            t = step / 40
            parts = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            points.append(
                tuple(SHARPNESS * sum(part * corner[axis] for part, corner in zip(parts, corners, strict=True)) for axis in (0, 1))
            )
        self.draw.line(points, fill=stroke, width=3 * SHARPNESS, joint="curve")

    def rounded(self, left: float, top: float, right: float, bottom: float, fill: str, outline: str) -> None:
        corners = [value * SHARPNESS for value in (left, top, right, bottom)]
        self.draw.rounded_rectangle(corners, 7 * SHARPNESS, fill=fill, outline=outline, width=2 * SHARPNESS)

    def text(self, x: float, y: float, text: str, fill: str, anchor: str, room: float) -> None:
        """On one line, cut with dots where there is no room."""
        font = ImageFont.load_default(TEXT * SHARPNESS)
        line = " ".join(text.split())
        while len(line) > 1 and font.getlength(line) > room * SHARPNESS:
            line = line.removesuffix("...")[:-1].rstrip() + "..."
        self.draw.text((x * SHARPNESS, y * SHARPNESS), line, fill=fill, font=font, anchor=anchor)
