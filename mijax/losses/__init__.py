"""Loss terms and statistics as pure functions: arrays in, scalars out. Needs JAX alone.

Conventions: ``logits`` are raw, ``probs`` sum to 1 over the last axis, ``labels`` are
integers; maps are (b, *space, k) and masks (b, *space), with two axes of space, (h, w), or
three, (d, h, w), as the rank says. A logit of −∞ rules a class out. Logarithms are natural, so
entropies and mutual information are in nats. A term is minimised as it stands; mutual information
and boundary correlation keep their textbook signs and are to be maximised.

Each function reduces over the whole batch. Inside ``jax.pmap`` or ``jax.shard_map``
pass ``axis_name``: sums and counts are then added over that axis *before* they are
divided or put through a logarithm, which gives every device the value of the global
batch. Inside one ``jit`` over a sharded batch, nothing has to be passed.
Gradients for shared parameters: ``shard_map`` as it comes adds them up by itself; under
``pmap`` and ``check_vma=False`` take their ``pmean``. See examples/shard_map_loop.py.
"""

from mijax.losses.boundary import boundary_correlation, edge_strength, pixel_entropy
from mijax.losses.contrastive import local_contrastive_loss, supervised_contrastive_loss
from mijax.losses.labels import label_loss, merge_undrawn
from mijax.losses.mutual_information import (
    joint_distribution,
    joint_distribution_by_convolution,
    local_mutual_information,
    mutual_information,
    regularised_information_loss,
)
from mijax.losses.pointwise import (
    cross_entropy,
    entropy,
    kl_divergence,
    kl_to_logits,
    soft_dice_loss,
    squared_error,
)

__all__ = [
    "boundary_correlation",
    "cross_entropy",
    "edge_strength",
    "entropy",
    "joint_distribution",
    "joint_distribution_by_convolution",
    "kl_divergence",
    "kl_to_logits",
    "label_loss",
    "local_contrastive_loss",
    "local_mutual_information",
    "merge_undrawn",
    "mutual_information",
    "pixel_entropy",
    "regularised_information_loss",
    "soft_dice_loss",
    "squared_error",
    "supervised_contrastive_loss",
]
