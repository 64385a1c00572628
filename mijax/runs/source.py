"""The data of a run, as its configuration says: found, prepared."""

import contextlib
import json
import os
from pathlib import Path

from mijax.data import index, list_cases, prepare
from mijax.files import locked


def index_data(config):
    """The ``data.Recipe`` of a run: its cases and their headers; no voxel is read."""
    with _cache(config) as cache:
        return index(
            config.data.source.name,
            **_options(config.data.source),
            cache=cache,
            bias_correction=config.data.patches.bias_correction,
        )


def prepare_data(config, found, annotation=None):
    """The ``data.Source`` of a run, prepared in the cache where it was not yet.

    Args:
      config: of the run.
      found: what ``index_data`` has found.
      annotation: which part of the labels counts, ``data.Annotation``; None for all.
    """
    with _cache(config) as cache:
        return prepare(found, cache=cache, annotation=annotation)


def open_data(config, annotation=None):
    """``prepare_data`` of what ``index_data`` finds."""
    return prepare_data(config, index_data(config), annotation)


def cases_of(config):
    """The cases of the data of a run, without opening a file; see ``data.list_cases``."""
    source, cache = config.data.source, str(_cache_folder(config))
    return list_cases(source.name, **_options(source), cache=cache)


def same_volumes(source, other):
    """Whether two ``config.data.source`` are of one folder, or drawn alike."""

    def volumes(s):
        if s.dir:
            return os.path.realpath(os.path.expanduser(s.dir))
        # As JSON, which a run was read from, and which knows no tuples.
        drawn = {k: s[k] for k in ("seed", "patients", "shape") if k in s}
        return json.dumps([s.name, drawn], sort_keys=True)

    return volumes(source) == volumes(other)


def flat_slices(slices):
    """``config.data.patches`` of 2-D slices, where it is of 3-D images: to describe and to show."""
    if slices.dims == 2:
        return slices
    found = slices.copy_and_resolve_references()
    found.update({"dims": 2, "size": tuple(slices.size)[-2:], "depth_spacing": None})
    if slices.fit == "whole":
        found.fit = "resize"
    return found


def _options(source):
    return {
        "directory": source.dir,
        **{k: v for k, v in source.items() if k not in ("name", "dir")},
    }


@contextlib.contextmanager
def _cache(config):
    """The folder of prepared data, held against other processes that would write to it."""
    cache = _cache_folder(config)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a cache that can only be read needs no lock
            stack.enter_context(locked(cache / ".lock", wait=True))
        yield str(cache)


def _cache_folder(config):
    return Path(config.cache).expanduser() / "data"
