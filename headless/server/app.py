"""The web application: every route under its plain name and under /api, behind one guard."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from ...core.errors import KintsugiError
from . import (
    about,
    job_routes,
    models,
    node_info,
    pack,
    page,
    prompt_routes,
    queue_routes,
    settings,
    uploads,
    user_data,
    view,
    websocket_routes,
)
from .answers import Refused, refusal
from .context import Context
from .security import add_headers, guard

log = logging.getLogger("kintsugi")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
API = "/api"
# Smaller answers fit one packet anyhow.
WORTH_COMPRESSING = 1400
_MODULES = (
    about, job_routes, models, node_info, pack, prompt_routes, queue_routes, settings, uploads, user_data, view, websocket_routes,
)  # fmt: skip


def build_app(context: Context) -> web.Application:
    """The application; the engine runs from its startup to its shutdown."""
    app = web.Application(middlewares=[explained, guard(context.options)], client_max_size=context.options.upload_limit)
    app[about.LOG] = about.LogLines(context.engine.hub)
    for route in (route for module in _MODULES for route in module.routes(context)):
        app.add_routes([route, web.route(route.method, f"{API}{route.path}", route.handler, **route.kwargs)])
    app.add_routes(page.routes(context))
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(compress)
    app.cleanup_ctx.append(about.keep_log)

    async def start(_app: web.Application) -> None:
        context.engine.start()

    async def close(_app: web.Application) -> None:
        await context.engine.close()

    app.on_startup.append(start)
    # At shutdown, not cleanup: websockets must end before the connections are waited for.
    app.on_shutdown.append(close)
    return app


@web.middleware
async def explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is answered as JSON that says what, without the server's own paths and code."""
    try:
        return await handler(request)
    except Refused:
        raise
    except web.HTTPException as raised:
        raise Refused(f"{raised.reason}.", raised.status, "refused") from raised
    except (HttpProcessingError, web.RequestPayloadError):
        return refusal("The body of the request cannot be read.")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        return refusal("A file stands where a folder is needed, or a folder where a file is.", 409, "exists")
    except PermissionError:
        return refusal("The server may not use that file or folder.", 403, "forbidden")
    except KintsugiError as error:
        log.warning("%s %s: %s", request.method, request.path, error)
        return refusal(error.what)
    except ConnectionError:
        raise
    except Exception:
        # The border to the network: nothing may end the server, and strangers learn nothing of it.
        log.exception("%s %s failed", request.method, request.path)
        return refusal("The server failed at this; its log says why.", 500, "internal")


async def compress(request: web.Request, response: web.StreamResponse) -> None:
    """Signal of every response: longer JSON and text goes as gzip, unless it is compressed already."""
    if not isinstance(response, web.Response) or "Content-Encoding" in response.headers or response.content_length is None:
        return
    textual = response.content_type == "application/json" or response.content_type.startswith("text/")
    if textual and response.content_length >= WORTH_COMPRESSING and "gzip" in request.headers.get("Accept-Encoding", ""):
        response.enable_compression(web.ContentCoding.gzip)
