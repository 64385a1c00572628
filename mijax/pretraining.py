"""The weights of another run to begin with."""

import jax

from mijax.data import read_splits
from mijax.errors import UserError
from mijax.experiment import same_volumes
from mijax.inference import restore
from mijax.models import CLASSIFIER


def pretrained(origin, run, splits, like, *, tell):
    """Network and statistics of the best checkpoint of a run, to begin another run with.

    Args:
      origin: ``Run`` that was trained.
      run: ``Run`` that begins.
      splits: of ``run``.
      like: shapes of its ``TrainState``.
      tell: called with a line about anything unusual.

    Raises:
      UserError: if it has no sound checkpoint, its network has other shapes, or it was trained
        on validation or test cases of ``run``.
    """
    seen = read_splits(origin.folder / "splits.json")
    seen = {*seen.labelled, *seen.unlabelled} & {*splits.validation, *splits.test}
    if seen and same_volumes(origin.config.data, run.config.data):
        raise UserError(
            f"config.init_from: {origin.folder} was trained on {len(seen)} of the validation "
            f"and test cases of this run ({sorted(seen)[0]}, …); give both the same splits"
        )
    if seen:
        tell(
            f"config.init_from: {origin.folder} was trained on cases with the names of {len(seen)} "
            f"validation and test cases of this run ({sorted(seen)[0]}, …), in another folder; if "
            "they are the same scans, the scores are worth nothing"
        )
    experiment, state = restore(origin, checkpoint="best", tell=tell)
    network, batch_stats = experiment.method.predictor(
        state.params, state.batch_stats, state.memory
    )
    del network[CLASSIFIER]
    for path, wanted in jax.tree.leaves_with_path((like.params["network"], like.batch_stats)):
        if path[1].key != CLASSIFIER:
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
