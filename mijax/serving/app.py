"""The addresses that are answered: MONAI Label's, as far as a viewer segments by them."""

import asyncio
import contextlib
from pathlib import Path
from typing import NamedTuple

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

import mijax
from mijax.data.patches import slice_options
from mijax.serving.errors import add_handlers, hide
from mijax.serving.guard import Journal, add_token, guard
from mijax.serving.images import add_images
from mijax.serving.infer import add_infer
from mijax.serving.model import Model
from mijax.serving.parts import Parts
from mijax.serving.reader import Reader
from mijax.serving.receive import Receiver, UploadLimits
from mijax.serving.sessions import Bounds, Sessions
from mijax.serving.turns import Queue
from mijax.serving.uploads import ENDINGS

_SWEEP = 30.0  # seconds


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
    sessions: Bounds = Bounds(64, 2**33, 8 * 3600.0)
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
    clean = hide((root, Path(run.folder)))
    reader = Reader(
        channels=channels,
        slices=slice_options(run.config.data.patches),
        most_voxels=settings.uploads.voxels,
    )
    parts = Parts(
        model=model,
        root=root,
        sessions=Sessions(settings.sessions),
        queue=Queue(settings.queue),
        reader=reader,
        receiver=Receiver(root, settings.uploads, reader, channels=channels),
        clean=clean,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async def sweep():
            while True:
                await asyncio.sleep(_SWEEP)
                parts.sessions.sweep()

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
        return {"status": "ok", "waiting": parts.queue.count}

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

    app.state.end = parts.queue.end  # for ``Server``
    add_images(app, parts)
    add_infer(app, parts)
    return app
