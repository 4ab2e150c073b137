"""`kintsugi serve`."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...core.errors import MissingPackageError
from .. import console
from ..options import Cpu, Device, Dtype, ExtraModelPaths, ModelsDirectory, host_options

EXAMPLE = "Example: kintsugi serve --input-directory photos --output-directory restored"
NETWORK, FOLDERS, PAGE = "Network", "Folders", "Page"

Listen = Annotated[
    str,
    typer.Option("--listen", "--host", metavar="ADDRESS", help="Address, or several with commas, to listen on.", rich_help_panel=NETWORK),
]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes any free one.", rich_help_panel=NETWORK)]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="WORD",
        envvar="KINTSUGI_TOKEN",
        help="Secret that requests must know; needed beyond this machine.",
        rich_help_panel=NETWORK,
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", help="Another name of this server; may be given several times.", rich_help_panel=NETWORK),
]
MaxUpload = Annotated[
    float, typer.Option("--max-upload-size", min=0.001, metavar="MB", help="Largest upload in megabytes.", rich_help_panel=NETWORK)
]
Base = Annotated[
    Path | None,
    typer.Option(
        "--base-directory", help="Folder of input, output and user; default here, the user's in your data folder.", rich_help_panel=FOLDERS
    ),
]
Input = Annotated[Path | None, typer.Option("--input-directory", help="Pictures to load; default BASE/input.", rich_help_panel=FOLDERS)]
Output = Annotated[Path | None, typer.Option("--output-directory", help="Results; default BASE/output.", rich_help_panel=FOLDERS)]
Temp = Annotated[
    Path | None,
    typer.Option("--temp-directory", help="Previews; default one that is removed at the end.", rich_help_panel=FOLDERS),
]
User = Annotated[
    Path | None, typer.Option("--user-directory", help="Settings and saved workflows; default BASE/user.", rich_help_panel=FOLDERS)
]
NoMetadata = Annotated[bool, typer.Option("--disable-metadata", help="Write pictures without their workflow.", rich_help_panel=PAGE)]
Previews = Annotated[
    Literal["none", "auto"], typer.Option("--preview-method", help="Whether to show pictures while they are made.", rich_help_panel=PAGE)
]
PreviewSize = Annotated[int, typer.Option("--preview-size", min=16, max=4096, help="Their longest side in pixels.", rich_help_panel=PAGE)]
CacheLru = Annotated[
    int | None,
    typer.Option("--cache-lru", min=1, metavar="N", help="Keep N results; default those of the last prompt.", rich_help_panel=PAGE),
]
CacheNone = Annotated[bool, typer.Option("--cache-none", help="Keep no result, for the least memory.", rich_help_panel=PAGE)]
FrontEnd = Annotated[
    Path | None,
    typer.Option("--front-end-root", metavar="DIR", help="A built front end in place of the installed one.", rich_help_panel=PAGE),
]
AutoLaunch = Annotated[bool, typer.Option("--auto-launch/--disable-auto-launch", help="Open the page in a browser.", rich_help_panel=PAGE)]


def serve(
    listen: Listen = "127.0.0.1",
    port: Port = 8188,
    token: Token = "",
    allow_host: AllowHost = None,
    max_upload_size: MaxUpload = 100,
    base_directory: Base = None,
    input_directory: Input = None,
    output_directory: Output = None,
    temp_directory: Temp = None,
    user_directory: User = None,
    disable_metadata: NoMetadata = False,
    preview_method: Previews = "auto",
    preview_size: PreviewSize = 512,
    cache_lru: CacheLru = None,
    cache_none: CacheNone = False,
    front_end_root: FrontEnd = None,
    auto_launch: AutoLaunch = True,
    device: Device = "auto",
    cpu: Cpu = False,
    dtype: Dtype = "auto",
    models_directory: ModelsDirectory = None,
    extra_model_paths: ExtraModelPaths = None,
) -> None:
    """Open ComfyUI's web canvas on this machine, without ComfyUI. Ctrl-C ends it."""
    _require_aiohttp()
    import asyncio
    from dataclasses import replace

    from ...core.folders import user_data_directory
    from ..host import chosen_folders
    from ..server.options import MEGABYTE, ServerOptions
    from ..server.running import new_context
    from ..server.running import serve as serve_page

    options = ServerOptions(
        user=user_directory or (base_directory or user_data_directory()) / "user",
        listen=tuple(name.strip() for name in listen.split(",")),
        port=port,
        token=token.strip(),
        allowed_hosts=tuple(allow_host or ()),
        upload_limit=int(max_upload_size * MEGABYTE),
        disable_metadata=disable_metadata,
        preview_method=preview_method,
        preview_size=preview_size,
        cache_lru=cache_lru,
        cache_none=cache_none,
        front_end=front_end_root,
    )
    computing = host_options(device, cpu, dtype, models_directory, extra_model_paths)
    base = base_directory or Path.cwd()
    with ExitStack() as until_the_end:
        temp = temp_directory or Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="kintsugi-")))
        folders = replace(chosen_folders(computing, input_directory or base / "input", output_directory or base / "output"), temp=temp)
        context = new_context(options, computing, folders)
        try:
            asyncio.run(serve_page(context, lambda address: _announce(address, auto_launch)))
        except KeyboardInterrupt:
            return


def _require_aiohttp() -> None:
    from importlib.util import find_spec

    if find_spec("aiohttp") is None:
        raise MissingPackageError("the web server needs aiohttp.", way_out="pip install 'kintsugi-restoration[server]'")


def _announce(address: str, auto_launch: bool) -> None:
    """The one line, and the page where someone sits in front of a screen."""
    console.say(f"Kintsugi is at {address}  (Ctrl-C ends it)")
    if auto_launch and sys.stdout.isatty() and _has_screen():
        import threading
        import webbrowser

        # Some browsers return only when they are closed.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
