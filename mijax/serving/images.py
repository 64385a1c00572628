"""Scans that are sent to be kept: by an id, and as the module of 3D Slicer does, by a name."""

from fastapi import HTTPException, Query, Request

from mijax.serving.parts import Parts, key_of

NAME = 256  # characters of the name of an image


def add_images(app, parts: Parts) -> None:
    """Adds the addresses to a ``FastAPI`` application."""
    sessions, receiver = parts.sessions, parts.receiver

    @app.put("/session")
    @app.put("/session/")
    async def create_session(request: Request, expiry: int = Query(0, ge=0)):
        async with receiver.receive(
            request, "files", most_files=parts.model.predictor.channels
        ) as upload:
            if upload.scan is None:
                raise HTTPException(400, "no file in the form field 'files'")
            session = sessions.add(upload.folder, upload.scan, seconds=expiry)
            upload.kept = True
        return {"session_id": session.id, "session_info": session.info()}

    @app.put("/datastore")
    @app.put("/datastore/")
    @app.put("/datastore/image")
    async def add_image(request: Request, image: str = Query(min_length=1, max_length=NAME)):
        async with receiver.receive(request, "file", most_files=1) as upload:
            if upload.scan is None:
                raise HTTPException(400, "no file in the form field 'file'")
            key = key_of(request, parts.model.options(upload.params), image)
            sessions.add(upload.folder, upload.scan, key=key)
            upload.kept = True
        return {"image": image}

    @app.put("/datastore/label")
    async def add_label():
        raise HTTPException(501, "labels are not kept here; save the segmentation in the viewer")

    @app.get("/session/{session_id}")
    async def get_session(session_id: str, update_ts: bool = False):
        return sessions.get(session_id, touch=update_ts).info()

    @app.delete("/session/{session_id}")
    async def remove_session(session_id: str):
        session = sessions.get(session_id)
        sessions.drop(session_id)
        return session.info()
