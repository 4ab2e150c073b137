"""From options to a server that answers, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from aiohttp import web
from PIL import Image

from ...core.errors import BadValueError, FileAccessError
from ...core.file_names import written_whole
from ...core.folders import Folders
from ...core.graph.cache import Cache, LastPromptCache, LruCache, NoCache
from ..host import chosen_device, chosen_dtype
from ..node_registry import full_registry
from ..options import HostOptions
from .app import build_app
from .context import Context
from .engine import Engine, EngineSettings
from .options import ServerOptions
from .security import require_token_beyond_loopback

# How long open downloads may go on once the server is told to stop.
GRACE_SECONDS = 1.0
# As ComfyUI lays out its user folder, so that one may serve both.
ONE_USER = "default"
SAMPLE, EXAMPLE = Path(__file__).parents[2] / "docs" / "sample" / "sample.jpg", "example.png"


def new_context(options: ServerOptions, computing: HostOptions, folders: Folders) -> Context:
    """Everything a server needs, its folders made. Raises BadValueError and FileAccessError for what cannot be."""
    require_token_beyond_loopback(options)
    user = options.user / ONE_USER
    for folder in (folders.input, folders.output, folders.temp, user):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileAccessError(str(error), where=str(folder), way_out="Choose a folder that can be written.") from error
    put_example(folders.input)
    device = chosen_device(computing.device, computing.cpu)
    engine_settings = EngineSettings(
        device=device,
        dtype=chosen_dtype(computing.dtype, device),
        folders=folders,
        stores_workflows=not options.disable_metadata,
        shows_previews=options.preview_method != "none",
        preview_size=options.preview_size,
        new_cache=lambda: new_cache(options),
    )
    registry = full_registry()
    return Context(options, folders, user, registry, Engine(registry, engine_settings))


def put_example(folder: Path) -> None:
    """The sample photo in an input folder that holds nothing, under the name that the shipped workflows load."""
    if any(folder.iterdir()):
        return
    with Image.open(SAMPLE) as photo, written_whole(folder / EXAMPLE) as temporary:
        photo.save(temporary)


def new_cache(options: ServerOptions) -> Cache:
    """How results are remembered: those of the last prompt, unless the options say how many, or none."""
    if options.cache_none:
        return NoCache()
    return LastPromptCache() if options.cache_lru is None else LruCache(options.cache_lru)


async def serve(context: Context, ready: Callable[[str], None]) -> None:
    """Answers until SIGINT or SIGTERM; `ready` is told the address of the page once it can be opened.

    Raises BadValueError when an address or port cannot be had.
    """
    stopped = asyncio.Event()
    runner = web.AppRunner(build_app(context), access_log=None, shutdown_timeout=GRACE_SECONDS)
    await runner.setup()
    try:
        port = await _listen(runner, context.options)
        with _told_to_stop(stopped):
            ready(page_address(context.options, port))
            await stopped.wait()
    finally:
        await runner.cleanup()


def page_address(options: ServerOptions, port: int) -> str:
    """What to open on this machine, with the token where there is one."""
    first = options.listen[0]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(first, f"[{first}]" if ":" in first else first)
    token = f"?token={quote(options.token, safe='')}" if options.token else ""
    return f"http://{name}:{port}/{token}"


async def _listen(runner: web.AppRunner, options: ServerOptions) -> int:
    """The port, which is the same at every address."""
    port = options.port
    for name in options.listen:
        try:
            await web.TCPSite(runner, name, port).start()
        except (OSError, OverflowError) as error:
            way_out = "Give another --port, 0 for any free one, or an address of this machine."
            raise BadValueError(f"cannot listen there ({error}).", where=f"{name}:{port}", way_out=way_out) from error
        port = port or int(runner.addresses[0][1])
    return port


@contextmanager
def _told_to_stop(stopped: asyncio.Event) -> Iterator[None]:
    """Inside the block SIGINT and SIGTERM set the event; a second one ends the program at once.

    Where event loops know no signals (Windows), Ctrl-C stays the KeyboardInterrupt that ends the loop.
    """
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        stopped.set()

    with suppress(NotImplementedError):
        for number in signals:
            loop.add_signal_handler(number, stop)
    yield
