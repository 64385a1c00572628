"""Networks that compute in bfloat16: what of it reaches a method, under strict promotion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import (
    KEY,
    NAMES,
    UNLABELLED,
    call,
    forward_with_features,
    make_featured,
    start_with_features,
)

from mijax import methods
from mijax.methods.parts import follow

OPTIONS = {
    "global_local_mi": {"features": NAMES, "importance": (1.0, 1.0), "radius": (0, 1)},
    "mixed_mi": {"prior_weight": 1.0, "consistency_weight": 1.0, "feature_weight": 1.0},
    "uamt": {"passes": 2},
}
HALF = jnp.bfloat16


@pytest.mark.parametrize("half", [("features",), ("features", "logits"), ("everything",)], ids=str)
@pytest.mark.parametrize("name", methods.names())
def test_losses_are_in_float32(name, half, batch):
    def forward(network, *streams, **options):
        streams = [x.astype(jnp.float32) for x in streams]
        outputs = forward_with_features(network, *streams, **options)
        return [
            output._replace(
                logits=output.logits if half == ("features",) else output.logits.astype(HALF),
                features={name: x.astype(HALF) for name, x in output.features.items()},
            )
            for output in outputs
        ]

    method = methods.build(name, **OPTIONS.get(name, {}))
    batch = batch._replace(
        position=np.zeros(UNLABELLED, np.float32),
        pseudo_label=np.zeros(batch.unlabelled.shape[:-1], int),
    )
    if half == ("everything",):
        batch = batch._replace(
            image=batch.image.astype(HALF), unlabelled=batch.unlabelled.astype(HALF)
        )

    def loss(network, batch):
        heads, memory = method.init(KEY, start_with_features(network))
        return call(method, {"network": network, **heads}, memory, batch, forward=forward)[0]

    assert jax.eval_shape(loss, make_featured(0), batch).dtype == jnp.float32


def test_a_teacher_keeps_its_type_and_is_averaged_in_float32():
    network = jnp.array([1.0, 2.0], HALF)
    teacher = {"network": network, "batch_stats": {}}
    params = {"network": jnp.array([1.5, 2.0], HALF)}
    after = follow(teacher, params, {}, 999, decay=0.99)["network"]
    # 1.005 is nearer to this than to 1, where an average in bfloat16 would stay.
    assert after.dtype == HALF and after.tolist() == [1.0078125, 2.0]
