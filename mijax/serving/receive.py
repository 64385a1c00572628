"""What a client sends, received within limits of size and time, and kept or removed."""

import asyncio
import contextlib
import re
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from fastapi import HTTPException
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect, Request

from mijax.data.scans import Scan
from mijax.serving.errors import enough_memory
from mijax.serving.reader import Reader
from mijax.serving.turns import Busy
from mijax.serving.uploads import store

_FIELDS, _FIELD_BYTES = 8, 2**16  # of a form, beside its files
_FORM = 2**20  # bytes of a form beside its files
_CHARSET = re.compile(rb";\s*charset[^;]*", re.I)  # which is UTF-8: others fail, or are slow
_SILENCE = 30.0  # seconds without a byte of an upload
_AGAIN = 10  # seconds after which to try an upload again


class UploadLimits(NamedTuple):
    """Bytes of the files of one request, seconds that they may take, how many uploads at a time.

    ``voxels`` are those of a scan, and of what is made of it for the network.
    """

    bytes: int = 2**30
    seconds: float = 600.0
    count: int = 4
    voxels: int = 2**28


class Upload:
    """A request that was received.

    Attributes:
      folder: of its files; removed at the end of the request, unless ``kept`` is set.
      scan: that was sent, or None.
      params: the form field of that name.
    """

    def __init__(self, folder: Path):
        self.folder, self.kept = folder, False
        self.scan: Scan | None = None
        self.params = ""


class Receiver:
    """Receives the uploads of a server."""

    def __init__(self, root: Path, limits: UploadLimits, reader: Reader, *, channels: int):
        """Keeps files below ``root``, those of a scan of so many channels."""
        self._root, self._limits = root, limits
        self._reader, self._channels = reader, channels
        self._places = asyncio.Semaphore(limits.count)

    @contextlib.asynccontextmanager
    async def receive(self, request: Request, field: str, *, most_files: int):
        """Receives the form of a request, with the files of a scan in ``field``, or none.

        Yields:
          ``Upload``.

        Raises:
          Busy: too many uploads at a time.
          UserError: no scan, or a bad one.
          HTTPException: 400, 408, 413 or 501.
        """
        if self._places.locked():
            raise Busy(_AGAIN)
        upload = Upload(Path(tempfile.mkdtemp(dir=self._root)))
        try:
            async with self._places, form_of(request, self._limits, files=most_files) as form:
                if files := files_of(form, field):
                    upload.scan = await asyncio.to_thread(self._open, files, upload.folder)
                params = form.get("params")
                upload.params = params if isinstance(params, str) else ""
            yield upload
        finally:
            if not upload.kept:
                await asyncio.to_thread(shutil.rmtree, upload.folder, ignore_errors=True)

    def _open(self, files, folder):
        most = self._limits.bytes
        with enough_memory():
            path = store(files, folder, channels=self._channels, most_bytes=most)
            return self._reader.open(path)


@contextlib.asynccontextmanager
async def form_of(request: Request, limits: UploadLimits, *, files: int):
    """The form of a request, in UTF-8, of which no more than so many bytes are received.

    Args:
      request: not yet read.
      limits: bytes are counted as they come.
      files: how many at most.

    Yields:
      ``FormData``.

    Raises:
      HTTPException: 413, 408 or 400.
    """
    most = limits.bytes + _FORM
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(limits)

    count = 0

    async def receive():
        nonlocal count
        message = await asyncio.wait_for(request.receive(), _SILENCE)
        count += len(message.get("body", b""))
        if count > most:
            raise _too_large(limits)
        return message

    headers = [(key, _CHARSET.sub(b"", value)) for key, value in request.scope["headers"]]
    counted = Request(request.scope | {"headers": headers}, receive)
    try:
        async with asyncio.timeout(limits.seconds):
            form = await counted.form(
                max_files=files, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
            )
    except TimeoutError:
        raise HTTPException(408, "the upload took too long") from None
    except ClientDisconnect:
        raise HTTPException(400, "the upload ended before its end") from None
    try:
        yield form
    finally:
        await form.close()


def _too_large(limits: UploadLimits) -> HTTPException:
    return HTTPException(413, f"the upload exceeds {limits.bytes / 2**20:g} MiB")


def files_of(form: FormData, name: str) -> list[UploadFile]:
    """The files of a form under a name.

    Raises:
      HTTPException: 400 where it has any other, or a text in place of a file.
    """
    files = form.getlist(name)
    others = [key for key, value in form.multi_items() if isinstance(value, UploadFile)]
    if any(key != name for key in others) or len(others) != len(files):
        raise HTTPException(400, f"files are taken in the form field {name!r} alone")
    return files
