"""The loop of plain_loop.py in Flax NNX: python examples/nnx_loop.py"""

import jax
import numpy as np
import optax
from flax import nnx

from mijax.data.sources.phantom import phantom_volume
from mijax.losses import local_mutual_information

volumes = [phantom_volume(0, patient, (32, 32, 8))[0] for patient in range(4)]
images = np.concatenate([np.moveaxis(volume, 2, 0) for volume in volumes])  # (b, h, w, 1)


class Network(nnx.Module):
    """Class maps (b, h, w, 3), as logits, of images (b, h, w, 1)."""

    def __init__(self, rngs):
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.second = nnx.Conv(16, 16, (3, 3), rngs=rngs)
        self.last = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.relu(self.second(nnx.relu(self.first(x)))))


def loss(network, images):
    p = jax.nn.softmax(network(images))
    q = jax.nn.softmax(network(images[:, :, ::-1]))[:, :, ::-1]
    return -local_mutual_information(p, q)  # to be maximised


@nnx.jit
def train_step(network, optimizer, images):
    value, grads = nnx.value_and_grad(loss)(network, images)
    optimizer.update(network, grads)
    return -value


network = Network(nnx.Rngs(0))
optimizer = nnx.Optimizer(network, optax.adam(3e-3), wrt=nnx.Param)
for step in range(41):
    information = train_step(network, optimizer, images)
    if step % 10 == 0:
        print(f"step {step}: mutual information {information:.3f} of at most {np.log(3):.3f} nats")
