"""The loop of plain_loop.py inside shard_map, over all devices: python examples/shard_map_loop.py

XLA_FLAGS=--xla_force_host_platform_device_count=2 makes two devices of a CPU. The numbers are
those of one device: with ``axis_name`` each device has the mutual information of the whole batch.
"""

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import AxisType, PartitionSpec

from mijax.data.sources.phantom import phantom_volume
from mijax.losses import local_mutual_information

volumes = [phantom_volume(0, patient, (32, 32, 8))[0] for patient in range(4)]
images = np.concatenate([np.moveaxis(volume, 2, 0) for volume in volumes])  # (b, h, w, 1)

network = nn.Sequential([nn.Conv(16, (3, 3)), nn.relu, nn.Conv(16, (3, 3)), nn.relu, nn.Dense(3)])
params = network.init(jax.random.key(0), images)
optimizer = optax.adam(3e-3)
opt_state = optimizer.init(params)


def loss(params, images):
    p = jax.nn.softmax(network.apply(params, images))
    q = jax.nn.softmax(network.apply(params, images[:, :, ::-1]))[:, :, ::-1]
    return -local_mutual_information(p, q, axis_name="devices")


def train_step(params, opt_state, images):
    # No pmean of the gradients: shard_map (with check_vma, as it comes) knows that the
    # parameters are the same everywhere, and has added up what the devices contribute.
    value, grads = jax.value_and_grad(loss)(params, images)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, -value


mesh = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))
everywhere, divided = PartitionSpec(), PartitionSpec("devices")
train_step = jax.jit(
    jax.shard_map(
        train_step,
        mesh=mesh,
        in_specs=(everywhere, everywhere, divided),
        out_specs=everywhere,
    )
)

print(f"{jax.device_count()} devices")
for step in range(41):
    params, opt_state, information = train_step(params, opt_state, images)
    if step % 10 == 0:
        print(f"step {step}: mutual information {information:.3f} of at most {np.log(3):.3f} nats")
