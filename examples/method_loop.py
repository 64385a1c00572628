"""A method of mijax in a loop and with a network of one's own: python examples/method_loop.py

Local mutual information with transformation consistency (Peng et al., MIDL 2020) trains a small
network on one labelled volume and three without labels. The loop asks of the method its loss alone.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mijax.data.sources.phantom import phantom_volume
from mijax.losses import label_loss
from mijax.methods import Batch, Output, local_mi

volumes = [phantom_volume(0, patient, (32, 32, 8)) for patient in range(4)]
scaled = [(image - image.mean()) / image.std() for image, *_ in volumes]
images = [np.moveaxis(image, 2, 0) for image in scaled]  # (8, 32, 32, 1) each
label = np.moveaxis(volumes[0][1], 2, 0).astype(np.int32)

network = nn.Sequential([nn.Conv(16, (3, 3)), nn.relu, nn.Conv(16, (3, 3)), nn.relu, nn.Dense(3)])
params = {"network": network.init(jax.random.key(0), images[0])}
optimizer = optax.adam(1e-2)
opt_state = optimizer.init(params)
method = local_mi.make(weight=1.0, mi_weight=3.0, rotation=15.0, flip=0.0)
batch = Batch(jnp.array(images[0]), jnp.array(label), jnp.concatenate(images[1:]))


def forward(params, *streams, key):
    """An output for each stream of images: a network without features or running statistics."""
    return [Output(network.apply(params, images), {}, {}) for images in streams]


@jax.jit
def train_step(params, opt_state, step):
    def loss(params):
        return method.loss(
            params,
            {},  # the memory, which this method does not need
            batch,
            forward=forward,
            label_loss=label_loss,
            step=step,
            key=jax.random.fold_in(jax.random.key(1), step),
        )

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, {"loss": value, **aux.logs}


for step in range(41):
    params, opt_state, logs = train_step(params, opt_state, step)
    if step % 10 == 0:
        print(f"step {step}:", ", ".join(f"{name} {value:.3f}" for name, value in logs.items()))
