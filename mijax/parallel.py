"""The processes of a run, the mesh of all their devices, and how arrays lie on it."""

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


class Preemption:
    """Notices SIGTERM, the notice that this machine is about to be taken away.

    A context manager; with several processes, JAX's own service notices and they all stop
    after the same step.
    """

    def __enter__(self):
        self._noticed, self._asked = False, 0
        self._alone = jax.process_count() == 1
        if self._alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_):
        if hasattr(self, "_before"):
            signal.signal(signal.SIGTERM, self._before)

    def _notice(self, *_):
        self._noticed = True

    def must_stop(self):
        """Whether to stop now; every process asks after each dispatch."""
        if self._alone:
            return self._noticed
        self._asked += 1
        return multihost_utils.reached_preemption_sync_point(self._asked)


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
