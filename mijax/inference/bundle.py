"""A run as one folder that predicts without mijax and without JAX."""

import ast
import os
import re
import shutil
from pathlib import Path

import mijax
from mijax.errors import UserError, needs
from mijax.files import write_json, writing_to
from mijax.inference.export import export
from mijax.inference.model_card import model_card
from mijax.inference.runner import DESCRIPTION, FORMAT, MODEL, checksum
from mijax.runs.folder import data_name

STABLEHLO = "network.stablehlo"
PACKAGE = "mijax_bundle"  # of the modules in it: mijax may be installed beside it
_RUNNER = "mijax.inference.runner"
_PREDICT = f'''"""python predict.py --input SCANS --output FOLDER; see README.md"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))
sys.dont_write_bytecode = True  # the folder stays as it was written
try:
    from {_RUNNER.replace("mijax", PACKAGE, 1)} import main
except (ImportError, SyntaxError, ValueError) as error:
    sys.exit(f"predict: {{FOLDER}}: missing or damaged files ({{error}}); copy it again")
sys.exit(main(FOLDER))
'''
_REQUIREMENTS = "nibabel>=5.3\nnumpy>=2.0\nonnxruntime>=1.20\nscipy\n"
_FOR_BIAS = "SimpleITK>=2.4\n"
_DOCKERFILE = """\
# docker build -t BUNDLE . && docker run --rm --user $(id -u) --network none \\
#   -v SCANS:/input:ro -v FOLDER:/output BUNDLE --input /input --output /output
FROM python:3.12-slim
WORKDIR /bundle
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
USER nobody
ENTRYPOINT ["python", "/bundle/predict.py"]
"""


def write_bundle(predictor, output, *, overwrite=False):
    """Writes the bundle of a run, in one piece.

    In it are ``model.onnx`` and the same network as StableHLO; ``predict.py`` and the modules of
    mijax that it takes from a scan to a label map, as they are here; ``bundle.json``, with the
    preprocessing and the checksums of all these files; and what is to be added to or changed: a
    model card, ``README.md``, a ``Dockerfile`` and its ``requirements.txt``.

    Args:
      predictor: ``Predictor`` that is on one device.
      output: folder, created with those around it.
      overwrite: replace a bundle that is there already.

    Raises:
      UserError: if there is something else, the run learned without labels, or onnx is missing.
    """
    needs("onnx", "export")
    from mijax.models.onnx import onnx_model

    predictor.check_segments()
    output = Path(output).expanduser().absolute()  # "." has no name
    if os.path.lexists(output):
        if not overwrite:
            raise UserError(f"{output} exists already; --overwrite replaces it")
        if not (output / DESCRIPTION).is_file():
            raise UserError(f"{output} is no bundle, and is left as it is; choose another --output")
    network, weights = predictor.network, predictor.weights
    model = onnx_model(
        network.model,
        weights["params"]["network"],
        weights["batch_stats"],
        dims=len(network.stride),
        channels=predictor.channels,
    )
    description = describe(predictor)
    checked = {
        MODEL: model.SerializeToString(),
        STABLEHLO: bytes(export(predictor).serialize()),
        "predict.py": _PREDICT,
        **modules(),
    }
    free = {
        "README.md": model_card(predictor, description),
        "Dockerfile": _DOCKERFILE,
        "requirements.txt": _REQUIREMENTS + _FOR_BIAS * description["slices"]["bias_correction"],
    }
    output = output.resolve()  # a link to a bundle stays one
    part = output.with_name(f".{output.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)  # of a process of that number that was killed
    try:
        with writing_to(output):
            for name, content in (checked | free).items():
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            sums = {name: checksum(part / name) for name in sorted(checked)}
            write_json(part / DESCRIPTION, description | {"sha256": sums})
            _replace(part, output)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(part, output):
    """Puts a folder in the place of another, if there is one, which goes once the new one is there.

    A kill may leave either beside it, whole.
    """
    if not output.exists():
        os.replace(part, output)
        return
    old = part.with_name(f"{part.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.replace(output, old)
    try:
        os.replace(part, output)
    except BaseException:
        os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def describe(predictor):
    """What is in ``bundle.json`` but for the checksums: all that the runner has to know."""
    network = predictor.network
    return {
        "format": FORMAT,
        "mijax": mijax.__version__,
        "run": data_name(predictor.run.config),
        "step": predictor.step,
        "classes": list(predictor.classes),
        "channels": predictor.channels,
        "numbered": predictor.numbered,
        "slices": network.slices.to_dict(),
        "patch": network.patch,
        "stride": network.stride,
    }


def modules():
    """Files of the package in a bundle: the modules of mijax that the runner needs.

    Returns:
      ``{path: source}``. They are as they are here but for the name of the package.
    """
    root = Path(mijax.__file__).parents[1]
    found, left = {}, [_RUNNER]
    while left:
        path = Path(*left.pop().split(".")).with_suffix(".py")
        if path in found or not (root / path).is_file():
            continue
        found[path] = (root / path).read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(found[path])):
            if isinstance(node, ast.ImportFrom):
                left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    renamed = {}
    for path, source in sorted(found.items()):
        source = re.sub(r"^(\s*from )mijax\.", rf"\1{PACKAGE}.", source, flags=re.MULTILINE)
        renamed[Path(PACKAGE, *path.parts[1:]).as_posix()] = source
    folders = {str(folder) for name in renamed for folder in list(Path(name).parents)[:-1]}
    return renamed | {f"{folder}/__init__.py": "" for folder in sorted(folders)}
