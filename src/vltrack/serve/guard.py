"""What every request must pass: name of the host, site that it comes from, token; and the headers of answers."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from vltrack.serve.settings import Settings, allowed_host

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
_SAFE = ("GET", "HEAD")
_OPEN = ("/", "/api/login", "/api/health")
"""Paths that need no token, beside the page's own files: they show no data."""
_MOST_RANGES, _LONGEST = 8, 8 << 10


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._session = secrets.token_urlsafe(32)
        self.cookie = f"vltrack_{settings.port}"

    def login(self, token: str) -> str | None:
        """Return the ``Set-Cookie`` header for the right token."""
        known = self._settings.token
        if known is None or not hmac.compare_digest(token.encode(), known.encode()):
            return None
        return f"{self.cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a WebSocket; there are none
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        if (refused := self._refusal(scope)) is not None:
            status, message, hint = refused
            body = json.dumps({"error": {"code": "Refused", "message": message, "hint": hint}}).encode()
            headers = [*_encoded(_HEADERS), (b"content-type", b"application/json"), (b"connection", b"close")]
            headers.append((b"content-length", str(len(body)).encode()))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                more = [pair for pair in _encoded(_HEADERS) if pair[0] not in present]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, secured)

    def _refusal(self, scope: Message) -> tuple[int, str, str] | None:
        """Status and sentences of a request that is refused."""
        if len(scope["raw_path"] or b"") + len(scope["query_string"]) > _LONGEST:
            return 414, "The address is too long.", "Open the page itself."
        if sum(len(name) + len(value) for name, value in scope["headers"]) > 2 * _LONGEST:
            return 431, "The headers are too long.", "Remove the cookies of this address."
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts, origins = headers.get("host", []), headers.get("origin", [])
        if len(hosts) != 1:
            return 400, "The request names no host, or several.", "Send one Host header."
        if not allowed_host(hosts[0], self._settings):
            return 421, "The request is for another host.", "Open the address that vltrack studio printed."
        if origins and origins != [f"{scope['scheme']}://{hosts[0]}"]:
            return 403, "The request comes from another site.", "Open the page itself."
        site = headers.get("sec-fetch-site", ["none"])[0]
        opened = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == ["navigate"]
        if site not in ("same-origin", "none") and not opened:
            return 403, "The request comes from another site.", "Open the page itself."
        if headers.get("range", [""])[0].count(",") >= _MOST_RANGES:
            return 416, "The request asks for too many ranges.", f"Ask for at most {_MOST_RANGES}."
        free = scope["path"] in _OPEN or scope["path"].startswith("/page/")
        if self._settings.token is not None and not free and not self._is_known(headers):
            return 401, "The token is missing or wrong.", "Log in with the token that vltrack studio printed."
        return None

    def _is_known(self, headers: dict[str, list[str]]) -> bool:
        bearer = headers.get("authorization", [""])[0]
        if bearer.lower().startswith("bearer "):
            return self.login(bearer[7:].strip()) is not None
        jar = SimpleCookie()
        try:
            jar.load("; ".join(headers.get("cookie", [])))
        except CookieError:
            return False
        morsel = jar.get(self.cookie)
        return morsel is not None and hmac.compare_digest(morsel.value.encode(), self._session.encode())


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
