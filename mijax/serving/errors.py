"""Errors as one line of JSON, ``{"detail": …}``, that shows nothing of the machine."""

import contextlib
import errno
import logging
import re
import traceback

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from mijax.errors import UserError
from mijax.progress import out_of_memory
from mijax.serving.archive import TooLarge
from mijax.serving.sessions import Full, Unknown
from mijax.serving.turns import Busy

_LONGEST = 500  # characters of a line
_AGAIN = 60  # seconds after which to try again where there is no room
_log = logging.getLogger("mijax")


def hide(folders):
    """A function that leaves folders out of a line, and keeps the names of files in them."""
    texts = {str(form) for path in folders for form in (path.absolute(), path.resolve())}
    pattern = rf"({'|'.join(map(re.escape, texts))})(/\w+(?=[/:\s]|$))?/?"

    def clean(text):
        line = re.sub(pattern, "", text)
        return " ".join(line.split()).removeprefix(": ")[:_LONGEST]

    return clean


def add_handlers(app, clean):
    """Answers all errors of a ``FastAPI`` application, after ``clean`` of ``hide``."""

    def answer(request, status, detail, headers=None):
        line = request.state.detail = clean(detail)  # for the journal, too
        return JSONResponse({"detail": line}, status, headers)

    @app.exception_handler(HTTPException)
    async def http(request, error):
        return answer(request, error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request, error):
        first = error.errors()[0]
        return answer(request, 422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(UserError)
    async def user(request, error):
        return answer(request, 413 if isinstance(error, TooLarge) else 400, str(error))

    @app.exception_handler(Busy)
    async def busy(request, error):
        detail = "all places in the line are taken; try again later"
        return answer(request, 503, detail, {"Retry-After": str(error.seconds)})

    @app.exception_handler(Full)
    async def full(request, error):
        detail = "no room for another session; try again later, or delete one"
        return answer(request, 503, detail, {"Retry-After": str(_AGAIN)})

    @app.exception_handler(Unknown)
    async def unknown(request, error):
        return answer(request, 404, str(error))

    @app.exception_handler(OSError)
    async def disk(request, error):
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise error
        return answer(request, 507, "the disk of the server is full")

    @app.exception_handler(Exception)
    async def bug(request, error):
        traceback.print_exception(error)
        return answer(request, 500, "an error of the server; its log says more")


@contextlib.contextmanager
def enough_memory():
    """Where memory runs out, that is ``TooLarge``; what asked for it is logged."""
    try:
        yield
    except Exception as error:
        if line := out_of_memory(error):
            _log.error("%s", line)
            raise TooLarge("out of memory: the scan is too large for this server") from error
        raise
