"""The training state and its beginning."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mijax.methods import Start
from mijax.models import makes_logits


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that it takes to go on.

    ``hyper`` is a ``hypergradient.HyperState``, or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    memory: Any
    opt_state: Any
    key: jax.Array
    hyper: Any = None


def make_init(model, method, optimizer, image_shape, *, hypergradient=None) -> Callable:
    """``init(seed, slices, given) -> TrainState``; jit it, so that no two buffers are shared.

    ``slices`` is the number of unlabelled slices, static. ``given`` is a network and its
    statistics to begin with instead of random ones, or None; what it has not is drawn.
    """

    def init(seed, slices, given=None):
        key, network_key, method_key = jax.random.split(jax.random.key(seed), 3)
        image = jnp.zeros((1, *image_shape))

        def draw(key, *, another=False):
            (_, features), variables = model.init_with_output(key, image, train=False)
            network, batch_stats = variables["params"], variables.get("batch_stats", {})
            if given is not None:
                network = {
                    name: layer if another and makes_logits(name) else given[0].get(name, layer)
                    for name, layer in network.items()
                }
                batch_stats = given[1]
            return network, batch_stats, features

        network, batch_stats, features = draw(network_key)
        heads, memory = method.init(
            method_key,
            Start(
                network=network,
                batch_stats=batch_stats,
                features={name: x.shape for name, x in features.items()},
                unlabelled_shape=(slices, *image_shape[:-1]),
                another=lambda key: draw(key, another=True)[0],
            ),
        )
        params = {"network": network, **heads}
        return TrainState(
            jnp.zeros((), jnp.int32),
            params,
            batch_stats,
            memory,
            optimizer.init(params),
            jax.random.key_data(key),
            hypergradient and hypergradient.init(),
        )

    return init
