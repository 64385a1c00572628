"""No PRNG key is used twice: JAX refuses a program that does, when it is asked to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import NAMES, call, forward_with_features, make_featured, start_with_features

from mijax import losses, methods, parallel
from mijax.models import UNet
from mijax.training.batches import PerRole, TrainingSet
from mijax.training.optimizer import make_optimizer
from mijax.training.state import make_init
from mijax.training.step import make_train_step
from mijax.transforms import augment, sample_view

KEY_DATA = jax.random.key_data(jax.random.key(0))
ALL = {
    "rotation": 9.0, "shear": 3.0, "scale": (0.9, 1.1), "flip": 0.5,
    "quarter_turns": True, "brightness": 0.1, "contrast": 0.1, "gamma": 0.1, "noise": 0.1,
    "blur": 1.0,
}  # fmt: skip
OF_METHOD = {
    "global_local_mi": {"features": NAMES, "importance": (1.0, 1.0), "radius": (0, 1)},
    "uamt": {"passes": 2},
}


def trace(f, *arguments):
    """Traces ``f(key, …)`` under the checks; nothing of it is left to compile."""
    with jax.debug_key_reuse(True):
        jax.jit(lambda *given: (f(jax.random.wrap_key_data(KEY_DATA), *given), jnp.zeros(()))[1])(
            *arguments
        )


def test_a_key_that_is_used_twice_is_noticed():
    with pytest.raises(jax.errors.KeyReuseError):
        trace(lambda key: jax.random.normal(key) + jax.random.uniform(key))


@pytest.mark.parametrize("name", methods.names())
def test_a_method_uses_no_key_twice(name, batch):
    defaults = methods.defaults(name)
    options = {k: v for k, v in ALL.items() if k in defaults} | OF_METHOD.get(name, {})
    method = methods.build(name, **options)
    network = make_featured(0)

    def forward(network, *streams, key, **options):
        keys = jax.random.split(key, len(streams))
        dropped = [
            jnp.where(jax.random.bernoulli(k, 0.5, x.shape), x, 0)
            for k, x in zip(keys, streams, strict=True)
        ]
        return forward_with_features(network, *dropped, key=key, **options)

    def start_and_loss(key, batch):
        start_key, loss_key = jax.random.split(key)
        heads, memory = method.init(start_key, start_with_features(network))
        params = {"network": network, **heads}
        return call(method, params, memory, batch, forward=forward, key=loss_key)

    labels = np.zeros(batch.unlabelled.shape[:3], int)
    trace(start_and_loss, batch._replace(position=labels[:, 0, 0], pseudo_label=labels))


def test_a_step_with_a_teacher_uses_no_key_twice(batch):
    method = methods.with_teacher(methods.build("supervised"), noise=0.1)
    model, optimizer = (
        UNet(2, widths=(2, 2), dropout=0.5),
        make_optimizer("sgd", lambda step: 1e-3, weight_decay=0),
    )
    step = make_train_step(
        model,
        method,
        optimizer,
        mesh=parallel.make_mesh(jax.devices()[:1]),
        label_loss=losses.label_loss,
        batches=PerRole(2, 2, 2),
        augmentation=ALL,
        length=1,
    )
    image, label = batch.image, batch.label
    others = methods.Unlabelled(image, label[:, 0, 0], label[:, 0, 0])
    init = make_init(model, method, optimizer, image.shape[1:])
    trace(lambda _, *data: step(init(0, len(image)), TrainingSet(*data)), image, label, others)


def test_transformations_use_no_key_twice(batch):
    ranges = {k: ALL[k] for k in ("rotation", "shear", "scale", "flip")}
    trace(lambda key: sample_view(key, 3, **ranges, translation=0.1, shape=(8, 8)))
    trace(lambda key, x, y: augment(key, x, y, crop=(4, 4), **ALL), batch.image, batch.label)
