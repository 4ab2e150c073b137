"""Who may talk to the server: this machine's own pages, or who knows the token.

A browser lets any page on the web send requests to addresses of this machine, so each request must show that it comes from
our own page: by the Host it names, by its Origin, by what the browser says of its Sec-Fetch-Site, and by the token where
there is one. Programs, which send none of those but Host, pass like the person who started them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from ...core.errors import BadValueError
from .answers import Refused
from .options import ServerOptions

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The page makes workers and modules from blobs and compiles templates, hence `blob:` and `unsafe-eval`.
CONTENT_SECURITY_POLICY = "; ".join((
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "media-src 'self' data: blob:",
    "font-src 'self' data:",
    "connect-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "object-src 'none'",
    "base-uri 'self'",
    "form-action 'self'",
    "frame-ancestors 'self'",
))  # fmt: skip
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The token may be in the address; it must not travel to other sites.
    "Referrer-Policy": "same-origin",
}
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?", re.IGNORECASE)
_OUR_PAGES = ("same-origin", "none")
_USUAL_PORTS = {"http": "80", "https": "443"}


def is_loopback(name: str) -> bool:
    """Whether only this machine can reach that address or name."""
    address = _address(name)
    return address.is_loopback if address else name.lower() == "localhost"


def require_token_beyond_loopback(options: ServerOptions) -> None:
    """BadValueError when others could reach a server that asks for no token."""
    open_to_others = [name for name in options.listen if not is_loopback(name)]
    if open_to_others and not options.token:
        raise BadValueError(
            f"listening on {', '.join(open_to_others)} lets others in, and no token is set.",
            where="--listen",
            way_out="Add --token WORD (or set KINTSUGI_TOKEN) with a long secret word, or leave --listen out.",
        )


def guard(options: ServerOptions) -> Middleware:
    """The check that every request passes first, the websocket's too. Refuses with 400, 401 or 403."""
    allowed = {_plain(name) for name in (*options.listen, *options.allowed_hosts)}
    # An address, unlike a name, cannot be pointed at us by a stranger's name server.
    any_address = any(address.is_unspecified for address in map(_address, options.listen) if address)

    def is_ours(name: str) -> bool:
        return name in allowed or is_loopback(name) or (any_address and _address(name) is not None)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        name, port = _host(request)
        if not is_ours(name):
            raise Refused("This server is not known by that name; see --allow-host.", 403, "forbidden")
        _require_our_origin(request, name, port)
        _require_our_page(request)
        if options.token:
            entering = _require_token(request, options)
            if entering is not None:
                return entering
        return await handler(request)

    return guarded


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Signal of every response, refusals included."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


def _host(request: web.Request) -> tuple[str, str | None]:
    """Name and port of the one Host header."""
    given = request.headers.getall("Host", [])
    match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    if match is None:
        raise Refused("The request needs one Host header, with a name and perhaps a port.")
    return _plain(match[1]), match[2]


def _plain(name: str) -> str:
    """One spelling of a name or address in a header."""
    return name.strip("[]").lower().rstrip(".")


def _require_our_origin(request: web.Request, name: str, port: str | None) -> None:
    """Browsers send Origin with whatever could change something; `null` is one of nobody's."""
    for origin in request.headers.getall("Origin", []):
        scheme, _, place = origin.lower().partition("://")
        usual, match = _USUAL_PORTS.get(scheme), _HOST.fullmatch(place)
        if usual is None or match is None or _plain(match[1]) != name or (match[2] or usual) != (port or usual):
            raise Refused("The request comes from another site.", 403, "forbidden")


def _require_our_page(request: web.Request) -> None:
    """Other sites may send a person to the first page, and nothing else."""
    sites = request.headers.getall("Sec-Fetch-Site", [])
    if all(site in _OUR_PAGES for site in sites):
        return
    headers = request.headers
    navigation = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    if not (navigation and request.method == "GET" and request.path == "/"):
        raise Refused("The request comes from another site.", 403, "forbidden")


def _require_token(request: web.Request, options: ServerOptions) -> web.Response | None:
    """A redirect that sets the cookie when the address of the first page carries the token; otherwise cookie or header must."""
    cookie, name = _cookie_value(options.token), f"kintsugi_{options.port}"
    if request.path == "/" and request.method == "GET" and _same(request.query.get("token", ""), options.token):
        response = web.Response(status=303, headers={"Location": "./", "Cache-Control": "no-store"})
        response.set_cookie(name, cookie, httponly=True, samesite="Strict", path="/", secure=request.secure)
        return response
    scheme, _, word = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and _same(word.strip(), options.token):
        return None
    if _same(request.cookies.get(name, ""), cookie):
        return None
    raise Refused("This server asks for its token: open the address that it printed, or send it as a bearer.", 401, "unauthorized")


def _cookie_value(token: str) -> str:
    """Proof of the token that does not tell it: browsers show cookies to every server of the same host."""
    return hmac.new(token.encode(), b"cookie of kintsugi serve", hashlib.sha256).hexdigest()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
