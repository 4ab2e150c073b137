"""What a person may choose about the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class ServerOptions:
    """Where it listens, whom it answers, and how results are shown.

    listen: addresses or names to listen on; port 0 takes any free one. user: folder of settings and saved workflows.
    token: what requests must know when it is not empty. allowed_hosts: names, beside the addresses it listens on, under
    which people reach it. upload_limit: bytes of one request's body. preview_size: longest side in pixels. cache_lru: how many
    results are kept, where None means those of the last prompt; cache_none keeps nothing. front_end: folder with an
    index.html in place of the one in the package comfyui-frontend-package.
    """

    user: Path
    listen: tuple[str, ...] = ("127.0.0.1",)
    port: int = 8188
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()
    upload_limit: int = 100 * MEGABYTE
    disable_metadata: bool = False
    preview_method: str = "auto"
    preview_size: int = 512
    cache_lru: int | None = None
    cache_none: bool = False
    front_end: Path | None = None
