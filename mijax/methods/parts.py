"""Pieces that several methods are made of."""

import jax.numpy as jnp
import numpy as np


def forward_streams(forward, network, streams, *, key, shared_statistics=False):
    """Runs several image batches through the network in one pass.

    By default each is normalised by its own BatchNorm statistics, and the running ones are
    those of the first. The authors' release shares one set of statistics; with few labelled
    images the network then tells labelled from unlabelled by them, and learns to answer
    background to the latter.

    Args:
      forward: see ``Method.loss``.
      network: its parameters.
      streams: image batches (b_i, h, w, c), the labelled one first.
      key: PRNG key of the dropout.
      shared_statistics: one set of statistics over all of them, as the authors.

    Returns:
      List of logits, one a stream, and the new running statistics.
    """
    counts = [x.shape[0] for x in streams]
    output = forward(
        network,
        jnp.concatenate(streams),
        key=key,
        streams=None if shared_statistics else tuple(counts),
    )
    return jnp.split(output.logits, np.cumsum(counts[:-1])), output.batch_stats


def ramp(step, length):
    """Sigmoid ramp-up from exp(−5) to 1 over ``length`` steps: exp(−5 (1 − t)²); 1 if 0.

    Reference: Laine and Aila, ICLR 2017.
    """
    if not length:
        return 1.0
    return jnp.exp(-5.0 * (1.0 - jnp.clip(step / length, 0.0, 1.0)) ** 2)
