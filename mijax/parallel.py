"""The mesh of all devices, and how arrays lie on it."""

import os

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def make_mesh(devices=None):
    """One axis, "data", over all devices, or over those given."""
    devices = jax.devices() if devices is None else devices
    # Auto: Flax's BatchNorm and Dropout do not trace under the default, Explicit.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
    """Sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh):
    """Sharding that divides the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def cores():
    """Processor cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
