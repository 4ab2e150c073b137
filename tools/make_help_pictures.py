"""Make the pictures of the help pages, with the weights that ship.

    python tools/make_help_pictures.py [NODE_ID ...]

web/docs/img/<NodeId>.jpg: what the node does to a photo, where that can be seen.
web/docs/img/<NodeId>.graph.png: the node among its neighbours.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from graph_drawing import draw_graph
from help_graphs import GRAPHS
from help_strips import STRIPS, row
from kintsugi.core.folders import Folders
from kintsugi.core.runtime import LocalHost, using_host
from PIL import Image

PICTURES = Path(__file__).parent.parent / "web" / "docs" / "img"
LARGEST = 38_000  # bytes


def small_jpeg(picture: Image.Image) -> bytes:
    """In the best quality that is small enough."""
    for quality in range(88, 20, -4):
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LARGEST:
            break
    return file.getvalue()


def main() -> None:
    wanted = set(sys.argv[1:] or GRAPHS)
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        folders = Folders(*(Path(folder, name) for name in ("input", "output", "temp", "models")))
        folders.input.mkdir()
        folders.output.mkdir()
        with using_host(LocalHost(torch.device("cpu"), folders=folders)), torch.inference_mode():
            for node_id in sorted(wanted & set(STRIPS)):
                (PICTURES / f"{node_id}.jpg").write_bytes(small_jpeg(row(STRIPS[node_id]())))
    for node_id in sorted(wanted & set(GRAPHS)):
        draw_graph(node_id, GRAPHS[node_id]).save(PICTURES / f"{node_id}.graph.png", optimize=True)


if __name__ == "__main__":
    main()
