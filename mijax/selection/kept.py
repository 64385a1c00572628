"""What is computed case by case, kept in files: a command that was killed goes on."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from mijax.files import write_atomically
from mijax.progress import logged


def kept(names, make, *, folder, what, key):
    """``{name: {array name: array}}`` of cases, read from the folder or made and written there.

    Args:
      names: of the cases.
      make: names -> iterable of ``{array name: array}``, in their order.
      folder: where they are kept, in a folder of the key.
      what: is done, for lines such as "describing 3/20".
      key: JSON of all that the arrays depend on.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(folder) / digest
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: _read(folder / f"{name}.npz") for name in names}
    missing = [name for name in names if found[name] is None]
    results = logged(make(missing), len(missing), what) if missing else ()
    for name, arrays in zip(missing, results, strict=True):
        content = io.BytesIO()
        np.savez(content, **arrays)
        write_atomically(folder / f"{name}.npz", content.getvalue())
        found[name] = arrays
    return found


def _read(path):
    try:
        with np.load(io.BytesIO(path.read_bytes())) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged
