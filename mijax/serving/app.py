"""The addresses that are answered: MONAI Label's, as far as a viewer segments by them."""

import asyncio
import contextlib
import json
import secrets
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response

import mijax
from mijax.data.patches import slice_options
from mijax.serving.errors import add_handlers, enough_memory, hide
from mijax.serving.guard import Journal, add_token, guard
from mijax.serving.model import LABELS, SEG, Model
from mijax.serving.reader import Reader
from mijax.serving.receive import Receiver, UploadLimits
from mijax.serving.sessions import Bounds, Sessions
from mijax.serving.turns import Queue
from mijax.serving.uploads import ENDINGS

_SWEEP = 30.0  # seconds
_GZIP, _DICOM = "application/gzip", "application/dicom"


class Settings(NamedTuple):
    """What a server allows.

    Attributes:
      uploads: ``receive.UploadLimits``.
      sessions: ``sessions.Bounds``.
      queue: predictions that wait behind one.
      origins: of web pages that may ask, such as https://viewer.example.
      token: that is asked for, or None.
    """

    uploads: UploadLimits = UploadLimits()
    sessions: Bounds = Bounds(16, 2**33, 3600.0)
    queue: int = 4
    origins: tuple[str, ...] = ()
    token: str | None = None


def make_app(model: Model, root: Path, settings: Settings) -> FastAPI:
    """The application.

    Args:
      model: what predicts.
      root: an empty folder of its own, where all that comes from outside is kept.
      settings: limits.
    """
    run, channels = model.predictor.run, model.predictor.channels
    sessions, queue = Sessions(settings.sessions), Queue(settings.queue)
    reader = Reader(
        channels=channels,
        slices=slice_options(run.config.data.patches),
        most_voxels=settings.uploads.voxels,
    )
    receiver = Receiver(root, settings.uploads, reader, channels=channels)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async def sweep():
            while True:
                await asyncio.sleep(_SWEEP)
                sessions.sweep()

        reader.start()
        task = asyncio.create_task(sweep())
        yield
        task.cancel()
        reader.close()

    app = FastAPI(
        lifespan=lifespan,
        dependencies=[Depends(guard(settings.token, settings.origins))],
        redirect_slashes=False,
        openapi_url=None,
    )
    clean = hide((root, Path(run.folder)))
    add_handlers(app, clean)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "PUT", "POST", "DELETE"],
            allow_headers=["authorization", "content-type"],
        )
    app.add_middleware(Journal)
    add_token(app, settings.token)

    @app.get("/health")
    async def health():
        return {"status": "ok", "waiting": queue.count}

    @app.get("/info")
    @app.get("/info/")
    async def info():
        return {
            "name": f"mijax: {model.name}",
            "description": "segmentation by a run of mijax; not a medical device",
            "version": mijax.__version__,
            "labels": list(model.labels),
            "models": {model.name: model.info()},
            "trainers": {},
            "strategies": {},
            "scoring": {},
            "train_stats": {},
            "datastore": {"total": 0, "completed": 0},
            "limits": {
                "upload_bytes": settings.uploads.bytes,
                "voxels": settings.uploads.voxels,
                "session_seconds": settings.sessions.seconds,
                "endings": [*ENDINGS, ".zip"],
            },
        }

    @app.put("/session")
    @app.put("/session/")
    async def create_session(request: Request, expiry: int = Query(0, ge=0)):
        async with receiver.receive(request, "files", most_files=channels) as upload:
            if upload.scan is None:
                raise HTTPException(400, "no file in the form field 'files'")
            session = sessions.add(upload.folder, upload.scan, seconds=expiry)
            upload.kept = True
        return {"session_id": session.id, "session_info": session.info()}

    def known(session_id, **options):
        session = sessions.get(session_id, **options)
        if session is None:
            raise HTTPException(404, "no such session, or it has expired; send the scan again")
        return session

    @app.get("/session/{session_id}")
    async def get_session(session_id: str, update_ts: bool = False):
        return known(session_id, touch=update_ts).info()

    @app.delete("/session/{session_id}")
    async def remove_session(session_id: str):
        session = known(session_id)
        sessions.drop(session_id)
        return session.info()

    def predict(scan, options, seg):
        """What there is to say of a scan, and the content of its label map or DICOM SEG."""
        with enough_memory(), tempfile.TemporaryDirectory(dir=root) as name:
            folder = Path(name)
            result = model.predict(scan, folder, options, read=reader.read, dicom_seg=seg)
            return result, (folder / (SEG if seg else LABELS)).read_bytes()

    @app.post("/infer/{name}")
    async def infer(
        request: Request,
        name: str,
        session_id: str = "",
        output: Literal["all", "image", "json", "dicom_seg"] = "all",
    ):
        if name != model.name:
            raise HTTPException(404, f"no such model; there is {model.name}")
        queue.check()
        async with contextlib.AsyncExitStack() as stack:
            session = None
            if session_id:
                session = known(session_id, touch=True)
                stack.enter_context(sessions.use(session))
            upload = await stack.enter_async_context(
                receiver.receive(request, "file", most_files=1)
            )
            options = model.options(upload.params)
            if (session is None) == (upload.scan is None):
                detail = "send a scan in the form field 'file', or a session_id"
                raise HTTPException(400, f"{detail}, one of them; no image is known by name")
            scan = session.scan if session else upload.scan
            seg = output == "dicom_seg"
            if seg:
                model.check_dicom_seg(scan)
            await stack.enter_async_context(queue.turn())
            if await request.is_disconnected():
                raise HTTPException(400, "the client is gone")
            result, content = await asyncio.to_thread(predict, scan, options, seg)
        result["notices"] = [clean(line) for line in result["notices"]]
        if output == "json":
            return JSONResponse(result)
        if output == "all":
            return _form(result, content)
        file, kind = (SEG, _DICOM) if seg else (LABELS, _GZIP)
        return Response(content, media_type=kind, headers=_attachment(file))

    return app


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
