"""Local mutual information in a plain Flax and Optax loop: python examples/plain_loop.py

A small network learns three classes from volumes without a label: of an image and of its
mirror image, mirrored back, it makes class maps that tell as much as possible of each other.
"""

import flax.linen as nn
import jax
import numpy as np
import optax

from mijax.data.sources.phantom import phantom_volume
from mijax.losses import local_mutual_information

volumes = [phantom_volume(0, patient, (32, 32, 8))[0] for patient in range(4)]
images = np.concatenate([np.moveaxis(volume, 2, 0) for volume in volumes])  # (b, h, w, 1)

network = nn.Sequential([nn.Conv(16, (3, 3)), nn.relu, nn.Conv(16, (3, 3)), nn.relu, nn.Dense(3)])
params = network.init(jax.random.key(0), images)
optimizer = optax.adam(3e-3)
opt_state = optimizer.init(params)


def loss(params):
    p = jax.nn.softmax(network.apply(params, images))
    q = jax.nn.softmax(network.apply(params, images[:, :, ::-1]))[:, :, ::-1]
    return -local_mutual_information(p, q)  # to be maximised


@jax.jit
def train_step(params, opt_state):
    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, -value


for step in range(41):
    params, opt_state, information = train_step(params, opt_state)
    if step % 10 == 0:
        print(f"step {step}: mutual information {information:.3f} of at most {np.log(3):.3f} nats")
