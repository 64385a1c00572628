"""Label maps of scans, as a file, as JSON, or both in one body."""

import asyncio
import contextlib
import json
import secrets
import tempfile
from pathlib import Path
from typing import Literal

from fastapi import HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response

from mijax.serving.errors import enough_memory
from mijax.serving.images import NAME
from mijax.serving.model import LABELS, SEG
from mijax.serving.parts import Parts, key_of

_GZIP, _DICOM = "application/gzip", "application/dicom"


def add_infer(app, parts: Parts) -> None:
    """Adds the address to a ``FastAPI`` application."""
    model, sessions, queue, root = parts.model, parts.sessions, parts.queue, parts.root

    def predict(scan, options, seg):
        """What there is to say of a scan, and the content of its label map or DICOM SEG."""
        with enough_memory(), tempfile.TemporaryDirectory(dir=root) as name:
            folder = Path(name)
            result = model.predict(scan, folder, options, read=parts.reader.read, dicom_seg=seg)
            return result, (folder / (SEG if seg else LABELS)).read_bytes()

    @app.post("/infer/{name}")
    async def infer(
        request: Request,
        name: str,
        image: str = Query("", max_length=NAME),
        session_id: str = "",
        output: Literal["all", "image", "json", "dicom_seg"] = "all",
    ):
        if name != model.name:
            raise HTTPException(404, f"no such model; there is {model.name}")
        queue.check()
        async with contextlib.AsyncExitStack() as stack:
            upload = await stack.enter_async_context(
                parts.receiver.receive(request, "file", most_files=1)
            )
            options, scan = model.options(upload.params), upload.scan
            if session_id and scan:
                raise HTTPException(400, "a session_id and a file; send one of them")
            if not scan:
                if session_id:
                    session = sessions.get(session_id)
                elif image:
                    session = sessions.find(key_of(request, options, image))
                else:
                    raise HTTPException(400, "send a scan in the form field 'file', or session_id")
                scan = stack.enter_context(sessions.use(session)).scan
            seg = output == "dicom_seg"
            if seg:
                model.check_dicom_seg(scan)
            await stack.enter_async_context(queue.turn())
            if await request.is_disconnected():
                raise HTTPException(400, "the client is gone")
            result, content = await asyncio.to_thread(predict, scan, options, seg)
        result["notices"] = [parts.clean(line) for line in result["notices"]]
        if output == "json":
            return JSONResponse(result)
        if output == "all":
            return _form(result, content)
        file, kind = (SEG, _DICOM) if seg else (LABELS, _GZIP)
        return Response(content, media_type=kind, headers=_attachment(file))


def _attachment(file):
    return {"content-disposition": f'attachment; filename="{file}"'}


def _form(result, content):
    """Both in one body, as MONAI Label answers: the fields ``params`` and ``image``."""
    boundary = secrets.token_hex(16)
    params = json.dumps(result, allow_nan=False)
    start = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="params"\r\n'
        f"Content-Type: application/json\r\n\r\n{params}\r\n"
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="image"; filename="{LABELS}"\r\n'
        f"Content-Type: {_GZIP}\r\n\r\n"
    )
    body = start.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return Response(body, headers={"content-type": f"multipart/form-data; boundary={boundary}"})
