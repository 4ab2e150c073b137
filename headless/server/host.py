"""The host of prompts on the server: their progress on the nodes of the canvas, previews, and the button that stops them."""

from __future__ import annotations

import io
import threading
import time
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from ...core.errors import Interrupted
from ...core.graph.events import RunningNode, running_node
from ...core.imaging.writing import quantised
from ...core.runtime import LocalHost, MakesPicture, Progress, SilentProgress

PREVIEW_INTERVAL = 0.1
PREVIEW_QUALITY = 90


@dataclass
class ServerHost(LocalHost):
    """stop: set when the prompt that runs is to end. shows_previews: whether anybody looks at pictures of work under way."""

    stop: threading.Event = field(default_factory=threading.Event)
    shows_previews: bool = False
    _last_preview: float = field(default=0.0, init=False)

    def progress(self, total: int, label: str) -> Progress:
        node = running_node()
        return SilentProgress(self.check_interrupted) if node is None else NodeProgress(total, node, self)

    def check_interrupted(self) -> None:
        if self.stop.is_set():
            raise Interrupted

    def wants_preview(self) -> bool:
        """Whether a picture should be made now: at most ten in a second."""
        moment = time.monotonic()
        if not self.shows_previews or moment - self._last_preview < PREVIEW_INTERVAL:
            return False
        self._last_preview = moment
        return True


class NodeProgress:
    """The bar of one node."""

    def __init__(self, total: int, node: RunningNode, host: ServerHost) -> None:
        self._total, self._done = total, 0
        self._node, self._host = node, host

    def advance(self, steps: int = 1, preview: MakesPicture | None = None) -> None:
        self._host.check_interrupted()
        self._done += steps
        picture = preview() if preview is not None and self._host.wants_preview() else None
        self._node.report(self._done, self._total, picture)


def preview_jpeg(picture: Tensor, longest_side: int) -> bytes:
    """JPEG file of a picture [H, W, 3] in 0..1, made smaller where a side is longer than that many pixels."""
    image = Image.fromarray(quantised(picture.detach().float().clamp(0, 1).cpu().numpy(), 8))
    image.thumbnail((longest_side, longest_side))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=PREVIEW_QUALITY)
    return file.getvalue()
