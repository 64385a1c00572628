"""The weights of another run to begin with."""

import jax

from mijax.errors import UserError
from mijax.inference.predictor import Predictor
from mijax.models import check_levels, makes_logits


def pretrained(origin, run, like, *, classes, devices=None):
    """Network and statistics of the best checkpoint of a run, to begin another run with.

    With its classifier only where the other goes on with its cases (``config.grow_from``); those of
    deep supervision may be of one of the two alone.

    Args:
      origin: ``Run`` that was trained.
      run: ``Run`` that begins.
      like: shapes of its ``TrainState``.
      classes: of its data.
      devices: that it trains on; all by default.

    Raises:
      UserError: if it has no sound checkpoint, its network has other shapes, or with its classifier
        other classes.
    """
    predictor = Predictor(origin, devices=devices)
    weights = predictor.weights
    network, batch_stats = weights["params"]["network"], weights["batch_stats"]
    grown = run.config.grow_from == run.config.init_from
    if grown and predictor.classes != tuple(classes):
        raise UserError(
            f"config.init_from: {origin.folder} has the classes {', '.join(predictor.classes)}, "
            f"and the data {', '.join(classes)} now; name them as they were, or begin without its "
            "weights (--grow with --noweights)"
        )
    if not grown:
        network = {name: layer for name, layer in network.items() if not makes_logits(name)}
    for path, wanted in jax.tree.leaves_with_path((like.params["network"], like.batch_stats)):
        if path[1].key in network or not makes_logits(path[1].key):
            found = network if path[0].idx == 0 else batch_stats
            for key in path[1:]:
                found = found.get(key.key, {})
            if getattr(found, "shape", None) != wanted.shape:
                raise _another(origin, jax.tree_util.keystr(path[1:]))
    return network, batch_stats


def check_origin(origin, config):
    """Refuses to begin with the network of a run that is another one by its configuration.

    Raises:
      UserError: if it has other levels, strides or another norm, whatever the shapes of weights.
    """
    if _unseen(origin.config) != _unseen(config):
        raise _another(origin, "its levels, their strides or the norm")


def _another(origin, what):
    return UserError(
        f"config.init_from: the network of {origin.folder} is another one ({what}); give both the "
        "same config.model and number of channels"
    )


def _unseen(config):
    """What a network may have besides, or have otherwise, with all the weights of another."""
    model, dims = config.model, config.data.patches.dims
    strides, _ = check_levels(model.strides, model.kernels, depth=len(model.widths), dims=dims)
    return len(model.widths), strides, model.norm
