"""The processes of a run, the mesh of all their devices, and how arrays lie on it."""

import contextlib
import itertools
import os
import signal
import threading

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mijax.errors import UserError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join():
    """Joins the other processes of a run, if it has any, before the first use of JAX.

    They are known by JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, as ``launch/local.sh`` and ``launch/k8s.yaml`` set them, or else by what
    ``jax.distributed`` finds of Slurm, Open MPI, GKE or a TPU pod.

    Raises:
      UserError: if some of the three variables are set and others not, or are no numbers.
    """
    given = [os.environ.get(name) for name in _VARIABLES]
    if all(given):
        address, *numbers = given
        if not all(n.isdecimal() for n in numbers):
            raise UserError(f"{' and '.join(_VARIABLES[1:])} are numbers, not {numbers}")
        jax.distributed.initialize(
            address, *map(int, numbers), cluster_detection_method="deactivate"
        )
    elif any(given[1:]):
        raise UserError(f"set all of {', '.join(_VARIABLES)}, or none")
    else:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            if "coordinator_address" not in str(error):  # that one: there is no cluster
                raise
        except RuntimeError as error:
            if "must be called before" not in str(error):  # that one: JAX is in use, by a caller
                raise


def is_first():
    """Whether this process is the one that writes files and talks."""
    return jax.process_index() == 0


def meet(name):
    """Waits until every process of the run has come to the place of that name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def preemption():
    """Notices SIGTERM, the notice that this machine is about to be taken away.

    Yields:
      ``must_stop() -> bool``, for every process to ask after each dispatch; they are told to
      stop after the same one.
    """
    if jax.process_count() > 1:  # JAX's own service notices, and agrees on the dispatch
        asked = itertools.count(1)
        yield lambda: multihost_utils.reached_preemption_sync_point(next(asked))
    elif threading.current_thread() is not threading.main_thread():  # gets no signals
        yield lambda: False
    else:
        noticed = threading.Event()
        before = signal.signal(signal.SIGTERM, lambda *_: noticed.set())
        try:
            yield noticed.is_set
        finally:
            signal.signal(signal.SIGTERM, before)


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


def dividing_cores(*batches):
    """How many of the cores can be devices of their own, so that all batches divide over them."""
    fits = [n for n in range(1, cores() + 1) if not any(batch % n for batch in batches)]
    return max(fits)
