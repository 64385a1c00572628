"""Who may ask: a token, and which web pages; and a line for each request."""

import logging
import secrets
import time

from fastapi import HTTPException, Request

from mijax.serving.receive import UploadLimits, form_of

_OPEN = ("/health", "/auth", "/auth/", "/auth/token")  # to anybody
_LOGIN = UploadLimits(bytes=2**20, seconds=10.0)  # which anybody may begin
_log = logging.getLogger("mijax")


def guard(token: str | None, origins: tuple[str, ...]):
    """A dependency that refuses requests.

    Browsers name the page that asks in Origin. Without this check any page that a user visits could
    ask a server on their own machine.

    Args:
      token: bearer token that is asked for, or None.
      origins: of pages that may ask.
    """

    def check(request: Request):
        origin = request.headers.get("origin")
        if origin is not None and origin not in origins:
            raise HTTPException(403, "pages of this origin may not ask; see --allow_origins")
        if token is None or request.scope["path"] in _OPEN:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not _same(given.strip(), token):
            raise _unknown("a token is needed")

    return check


def add_token(app, token: str | None) -> None:
    """The login of MONAI Label: its clients ask for a user and a password, which is the token."""

    @app.get("/auth")
    @app.get("/auth/")
    async def auth():
        return {"enabled": token is not None}

    if token is None:
        return

    @app.post("/auth/token")
    async def login(request: Request):
        async with form_of(request, _LOGIN, files=0) as form:
            given = str(form.get("password", ""))
        if not _same(given, token):
            raise _unknown("the password is the token of the server")
        return {"access_token": token, "token_type": "bearer"}

    @app.get("/auth/token/valid")
    async def valid():
        return {}


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _unknown(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})


class Journal:
    """Logs each request but those for /health, in a line, with what was wrong with it."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] == "/health":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), "no answer"

        async def watched(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = 500  # which is answered outside of here
            raise
        finally:
            path = ascii(scope["path"][:120])[1:-1]
            seconds = time.monotonic() - began
            detail = scope.get("state", {}).get("detail")
            text = f" ({detail})" if detail else ""
            _log.info("%s %s: %s, %.1f s%s", scope["method"][:16], path, status, seconds, text)
