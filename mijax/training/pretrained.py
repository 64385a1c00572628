"""The weights of another run to begin with."""

import logging

import jax

from mijax.data import read_splits
from mijax.errors import UserError
from mijax.inference.predictor import Predictor
from mijax.models import makes_logits
from mijax.runs.folder import open_run
from mijax.runs.source import same_volumes

_log = logging.getLogger("mijax")


def pretrained(origin, run, splits, like):
    """Network and statistics of the best checkpoint of a run, to begin another run with.

    With its classifier only where the other goes on with its cases (``config.grow_from``); those of
    deep supervision may be of one of the two alone.

    Args:
      origin: ``Run`` that was trained.
      run: ``Run`` that begins.
      splits: of ``run``.
      like: shapes of its ``TrainState``.

    Raises:
      UserError: if it has no sound checkpoint, its network has other shapes, or it, or a run that
        its weights came from, was trained on validation or test cases of ``run``, or its best
        checkpoint was chosen by test cases.
    """
    for ancestor in _lineage(origin):
        _check_leak(ancestor, run, splits)
    weights = Predictor(origin).weights
    network, batch_stats = weights["params"]["network"], weights["batch_stats"]
    grown = run.config.get("grow_from", "") == run.config.init_from
    if not grown:
        network = {name: layer for name, layer in network.items() if not makes_logits(name)}
    for path, wanted in jax.tree.leaves_with_path((like.params["network"], like.batch_stats)):
        if path[1].key in network or not makes_logits(path[1].key):
            found = network if path[0].idx == 0 else batch_stats
            for key in path[1:]:
                found = found.get(key.key, {})
            if getattr(found, "shape", None) != wanted.shape:
                raise UserError(
                    f"config.init_from: the network of {origin.folder} is another one "
                    f"({jax.tree_util.keystr(path[1:])}); give both the same config.model and "
                    "number of channels"
                )
    return network, batch_stats


def _lineage(run):
    """A run and those that its weights came from, one after another, as far as they are there."""
    found = {}
    while run and (folder := run.folder.resolve()) not in found:
        found[folder] = run
        try:
            run = run.config.init_from and open_run(run.config.init_from)
        except UserError:  # gone, or of another version
            break
    return found.values()


def _check_leak(origin, run, splits):
    """Refuses a run to begin with that has seen what is held back, or warns of names alone."""
    its = read_splits(origin.folder / "splits.json")
    seen = {*its.labelled, *its.unlabelled} & {*splits.validation, *splits.test}
    seen |= {*its.validation} & {*splits.test}
    if seen and same_volumes(origin.config.data.source, run.config.data.source):
        raise UserError(
            f"config.init_from: {origin.folder} was trained or validated on {len(seen)} of the "
            f"validation and test cases of this run ({min(seen)}, …); give both the same splits"
        )
    if seen:
        _log.warning(
            "config.init_from: %s was trained or validated on cases with the names of %d "
            "validation and test cases of this run (%s, …), in another folder; if they are the "
            "same scans, the scores are worth nothing",
            origin.folder,
            len(seen),
            min(seen),
        )
