"""Files and folders that are damaged on purpose, each in one place."""

import gzip
import json
import os
import warnings

import nibabel as nib
import numpy as np
from folders import AFFINE, image_values, write_metaimage
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mijax.data.formats.imagefile import read_image
from mijax.errors import Notice, UserError

MEMORY = 2**23  # bytes that Python and NumPy may take for a hostile file
NAN, INF = float("nan"), float("inf")


def nifti(kind=nib.Nifti1Image, **fields) -> bytes:
    """A small volume with these fields of its header, in which nothing else is wrong."""
    image = kind(image_values(0), AFFINE)
    content = image.to_bytes()
    header = type(image.header)(content[: image.header.sizeof_hdr], check=False)
    for name, value in fields.items():
        if name == "dim":
            value = [*value, *[1] * (8 - len(value))]
        header[name] = value
    return header.binaryblock + content[header.sizeof_hdr :]


GOOD = nifti()
PACKED = gzip.compress(GOOD, mtime=0)
NOISE = np.random.default_rng(0).bytes(5000)
BOMB = gzip.compress(GOOD + bytes(2**25))


def edited(content: bytes, position: int) -> bytes:
    """With all bits of one byte turned."""
    content = bytearray(content)
    content[position] ^= 0xFF
    return bytes(content)


def reads_or_refuses(path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)  # of sizes that are not there
            values, affine = read_image(path)
    except UserError as error:
        assert path.name in str(error) and len(str(error).splitlines()) == 1
    else:
        assert values.ndim in (3, 4) and np.isfinite(affine).all()


def in_one_folder(examples: int):
    """All examples write to the same folder, one after the other."""
    return settings(
        max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def metaimage(path, **fields) -> None:
    """A good MetaImage with these lines of its header changed, added or (None) left out."""
    write_metaimage(path, image_values(0).astype(np.int16))
    lines = dict(line.split(" = ", 1) for line in path.read_text().splitlines())
    last = {"ElementDataFile": lines.pop("ElementDataFile")}
    lines = {**lines, **{key: fields[key] for key in fields if key not in last}}
    lines |= {key: fields.get(key, value) for key, value in last.items()}
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    path.write_text(text)


def nrrd(path, **fields) -> None:
    """A good NRRD header and its a.raw, with these fields changed, added or (None) left out."""
    path.with_suffix(".raw").write_bytes(image_values(0).astype(np.int16).tobytes(order="F"))
    lines = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "6 5 4",
        "space directions": "(1,0,0) (0,1.5,0) (0,0,3)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(1,2,3)",
        "data file": "a.raw",
        **fields,
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    path.write_text(f"NRRD0004\n# a comment\n{text}name:=Jane: {'x' * 2000}\n")


def link(target):
    return lambda path: path.symlink_to(target)


PATHS = {  # what may stand in the place of a file
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link to nothing": link("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": link("/dev/zero"),
    "link to a folder": link("/tmp"),
    "link to a terminal": link("/dev/tty"),
    "link out of the folder": link("../../outside"),
    "link from the root": lambda path: path.symlink_to(path.parents[2] / "outside"),
    "link to a link out": lambda path: (
        (path.parent / ".hidden").symlink_to("../../outside"),
        path.symlink_to(".hidden"),
    ),
}


def fill(root, name: str, make) -> None:
    """A folder of a data set whose file of this name is made so."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root.parent / "outside").write_bytes(GOOD)
    (root / name).unlink(missing_ok=True)
    make(root / name)


MSD = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a"}}
NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "a": 1},
    "file_ending": ".mhd",
}


def nested(depth: int, start: str = "[", end: str = "]") -> str:
    return start * depth + end * depth


HUGE = "9" * 5000
JSON_FILES = {  # none of them a description of a data set, or its splits
    "nothing": b"",
    "blanks": b" \n" * 100,
    "NUL": bytes(100),
    "not UTF-8": b'{"modality": {"0": "\xff"}}',
    "UTF-16": json.dumps(MSD).encode("utf-16"),
    "gzip": PACKED,
    "noise": NOISE,
    "cut": json.dumps(MSD).encode()[:-3],
    "two objects": json.dumps(MSD).encode() * 2,
    "number": b"3",
    "null": b"null",
    "true": b"true",
    "text": b'"modality"',
    "NaN": b"NaN",
    "list of objects": b"[{}]",
    "nested lists": nested(10**5).encode(),
    "nested objects": nested(10**5, '{"a":', "}").encode(),
    "nested and never closed": b"[" * 10**6,
    "nested training": (json.dumps(MSD)[:-1] + f', "training": {nested(10**5)}}}').encode(),
    "number of 5000 digits": f'{{"numTraining": {HUGE}}}'.encode(),
    "a key twice": b'{"modality": {"0": "CT"}, "modality": {"0": "CT"}}',
    "a class twice": b'{"modality": {"0": "CT"}, "labels": {"0": "b", "1": "a", "1": "c"}}',
}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
