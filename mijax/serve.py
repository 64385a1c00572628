"""A run over HTTP, for 3D Slicer and other viewers: python -m mijax.serve --workdir RUN

It answers as much of MONAI Label's interface as automatic segmentation takes: in 3D Slicer the
module MONAI Label connects to http://127.0.0.1:8000. See docs/serving.md.

By default only programs on this machine reach it. With --host it listens elsewhere; then set the
environment variable MIJAX_TOKEN, a secret that clients have to give. Not a medical device.
"""

import os
import re
import tempfile
from pathlib import Path

from absl import flags

from mijax import commands
from mijax.errors import UserError, needs

TOKEN = "MIJAX_TOKEN"
_PACKAGES = ("fastapi", "uvicorn", "python_multipart")
_MOST = {"upload_seconds": 86_400, "session_minutes": 525_600}  # a day, a year
_LOCAL = ("127.0.0.1", "::1", "localhost")


def main(argv):
    """Serves the run of the command line until a signal ends it."""
    values = flags.FLAGS
    if not values.workdir:
        commands.fail("needs --workdir RUN")
    for package in _PACKAGES:
        needs(package, "serve")

    import logging

    from mijax.inference import Predictor
    from mijax.runs.folder import open_run
    from mijax.serving.app import make_app
    from mijax.serving.model import Model
    from mijax.serving.server import Server, listen

    run = open_run(values.workdir)
    settings = _settings(values)
    name = values.name or run.folder.resolve().name
    if not re.fullmatch(r"[\w.+-]{1,80}", name, re.ASCII):
        raise UserError(f"the name {name[:80]!a} is no part of an address; give one by --name")
    commands.prepare_jax(run.config)
    with listen(values.host, values.port) as listener, _scratch() as root:
        model = Model(
            Predictor(run, checkpoint=_checkpoint(values.checkpoint), devices=_devices()),
            name=name,
            trust=values.trust,
            codes=values.codes and Path(values.codes),
        )
        commands.show(logging.getLogger("uvicorn.error"), logging.WARNING)
        if model.known is None:
            commands.tell(f"no estimates of trust: {model.no_trust}")
        if values.host not in _LOCAL and not settings.token:
            commands.tell(f"whoever reaches {values.host} may use it: {TOKEN} is not set")
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        commands.tell(f"{name}, step {model.predictor.step}, at {address}; Ctrl-C ends it")
        Server(make_app(model, Path(root), settings)).run(sockets=[listener])
    commands.tell("ended")


def _scratch():
    """A folder for what comes from outside, which other users cannot read."""
    return tempfile.TemporaryDirectory(prefix="mijax-serve-", ignore_cleanup_errors=True)


def _devices():
    """All accelerators, or one CPU device, which uses all cores.

    Eight CPU devices of a process were seen to wait for one another for ever, until XLA aborted,
    where programs were begun on other threads than the first.
    """
    import jax

    found = jax.devices()
    return found[:1] if found[0].platform == "cpu" else found


def _checkpoint(text):
    if text in ("best", "last"):
        return text
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
        raise UserError(f"--checkpoint {text[:80]!a}: best, last or a step")
    return int(text)


def _settings(values):
    from mijax.serving.app import Settings
    from mijax.serving.receive import UploadLimits
    from mijax.serving.sessions import Bounds

    for name, most in _MOST.items():
        if not (given := getattr(values, name)) <= most:  # nor NaN, which flags take for any number
            raise UserError(f"--{name} is at most {most}, not {given}")
    token = os.environ.get(TOKEN, "").strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"{TOKEN}: plain ASCII without blanks is needed")
    return Settings(
        uploads=UploadLimits(
            bytes=values.max_upload_mb * 2**20,
            seconds=values.upload_seconds,
            voxels=values.max_voxels,
        ),
        sessions=Bounds(
            values.max_sessions, values.max_session_mb * 2**20, 60 * values.session_minutes
        ),
        queue=values.queue,
        origins=tuple(values.allow_origins),
        token=token or None,
    )


def define_flags():
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on")
    flags.DEFINE_integer("port", 8000, "port to listen on; 0 takes a free one", 0, 65535)
    flags.DEFINE_string(
        "checkpoint", "best", "best by validation DSC, the last one, or that of a step"
    )
    flags.DEFINE_string("name", None, "of the model; by default that of the run folder")
    flags.DEFINE_bool("trust", True, "also estimate each DSC; takes five times as long")
    flags.DEFINE_string("codes", None, "JSON file of the codes of the classes, for DICOM SEG")
    flags.DEFINE_integer("max_upload_mb", 1024, "MiB of one upload", 1)
    flags.DEFINE_integer("max_voxels", 2**28, "voxels of a scan, also as the network takes it", 1)
    flags.DEFINE_float("upload_seconds", 600.0, "that an upload may take", 1.0)
    flags.DEFINE_integer("max_sessions", 64, "scans that are kept", 1)
    flags.DEFINE_integer("max_session_mb", 8192, "MiB of all that are kept", 1)
    flags.DEFINE_float("session_minutes", 480.0, "that a scan is kept after its last use", 0.01)
    flags.DEFINE_integer("queue", 4, "predictions that wait behind one", 0)
    flags.DEFINE_list("allow_origins", [], "web pages that may ask: https://viewer.example")


if __name__ == "__main__":
    commands.run(main, define_flags)
