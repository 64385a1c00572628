"""The processes of a run, the mesh of all their devices, and how arrays lie on it."""

import contextlib
import itertools
import logging
import os
import signal
import threading
from collections import Counter

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mijax.errors import UserError
from mijax.progress import doing

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_DEVICE_FLAG = "xla_force_host_platform_device_count"
_WAIT = 300  # seconds for the other processes to come
_log = logging.getLogger("mijax")


def join():
    """Joins the other processes of a run, if it has any, before the first use of JAX.

    They are known by JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, as ``launch/local.sh`` and ``launch/k8s.yaml`` set them, or else by what
    Slurm and Open MPI tell, or ``jax.distributed`` finds of GKE or a TPU pod. A single process
    joins nothing, and sees all devices: joined, it would be shown one, and be in the way of any
    other run beside it. JAX_NUM_PROCESSES=1 makes a process single, whatever a cluster tells.

    Where the others keep it waiting, that is logged.

    Raises:
      UserError: if some of the three variables are set and others not, or are no numbers.
    """
    given = [os.environ.get(name) for name in _VARIABLES]
    process, processes = _launched()
    if given[1] == "1" or (processes == 1 and not any(given)):
        return
    if all(given):
        address, *numbers = given
        if not all(n.isdecimal() for n in numbers):
            raise UserError(f"{' and '.join(_VARIABLES[1:])} are numbers, not {numbers}")
        processes, process = map(int, numbers)
        with _waiting(process, processes):
            jax.distributed.initialize(
                address,
                processes,
                process,
                cluster_detection_method="deactivate",
                initialization_timeout=2 * _WAIT,
            )
    elif any(given[1:]):
        raise UserError(f"set all of {', '.join(_VARIABLES)}, or none")
    else:
        try:
            with _waiting(process, processes):
                jax.distributed.initialize(
                    local_device_ids=_all_devices(processes), initialization_timeout=2 * _WAIT
                )
        except ValueError as error:
            if "coordinator_address" not in str(error):  # that one: there is no cluster
                raise
        except RuntimeError as error:
            if "must be called before" not in str(error):  # that one: JAX is in use, by a caller
                raise


def _launched():
    """Number of this process, and of all that were started with it; None where nobody tells."""
    if "OMPI_MCA_orte_hnp_uri" in os.environ:
        names = ["OMPI_COMM_WORLD_RANK"], ["OMPI_COMM_WORLD_SIZE"]
    else:  # SLURM_NTASKS is of the whole allocation where salloc opened a shell in it
        names = ["SLURM_PROCID"], ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"]
    found = ([os.environ[n] for n in some if n in os.environ] for some in names)
    return tuple(int(numbers[0]) if numbers else None for numbers in found)


def _all_devices(processes):
    """An empty list for a process alone on its machine, to see all devices; else None.

    That stands for what JAX does by itself: of several processes on a machine each has one.
    """
    alone = (
        os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
        or os.environ.get("SLURM_STEP_NUM_NODES") == str(processes)
    ) and "JAX_LOCAL_DEVICE_IDS" not in os.environ
    return [] if alone else None


@contextlib.contextmanager
def _waiting(process, processes):
    """Logs for whom a process waits, and ends it in a line when they do not come.

    JAX would be silent, and then abort with a C++ stack.
    """
    others = f"the other {processes - 1} of {processes} processes" if processes else "the others"
    alone = "JAX_NUM_PROCESSES=1 trains with this one alone"

    def give_up():
        _log.error("%s did not come within %d s; start them all, or %s", others, _WAIT, alone)
        os._exit(1)

    timer = threading.Timer(_WAIT, give_up)
    timer.daemon = True
    timer.start()
    what = f"waiting {_WAIT} s for {others} of this run ({alone})"
    try:
        # One talks, unless it is the first that does not come.
        with doing(what, patience=1 if process == 0 else _WAIT / 10):
            yield
    finally:
        timer.cancel()


def devices(chosen=None):
    """The devices of a run in words, such as "4 × NVIDIA A100-SXM4-40GB"; all by default.

    Raises:
      UserError: if there are none of those that JAX_PLATFORMS asks for.
    """
    try:
        kinds = Counter(device.device_kind for device in chosen or jax.devices())
    except (AssertionError, RuntimeError) as error:  # the first of them says nothing
        reason = str(error).partition(" (set JAX_PLATFORMS")[0]
        raise UserError(
            f"JAX has no device for JAX_PLATFORMS={jax.config.jax_platforms or ''}"
            f"{f' ({reason})' if reason else ''}; unset it to use what there is. A GPU needs its "
            "driver, and mijax installed with -e '.[cuda13]' or '.[cuda12]'"
        ) from error
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items()) + processes


def is_first():
    """Whether this process is the one that writes files and talks."""
    return jax.process_index() == 0


def barrier(name):
    """Waits until every process of the run has come to the place of that name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def of_all(text):
    """What the processes of a run have for a text, in their order; all of them ask at once."""
    if jax.process_count() == 1:
        return [text]
    own = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(own.size))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: own.size] = own
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def preemption():
    """Notices SIGTERM, the notice that this machine is about to be taken away, and Ctrl-C.

    A second Ctrl-C has the effect that it has outside.

    Yields:
      ``must_stop() -> str``, for every process to ask after each dispatch: "SIGTERM", "Ctrl-C" or
      nothing; of several processes all are told to stop after the same one, by "SIGTERM".
    """
    if threading.current_thread() is not threading.main_thread():  # gets no signals
        yield lambda: ""
        return
    several, noticed = jax.process_count() > 1, []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def terminated(*_):
        noticed.append("SIGTERM")

    def interrupted(*_):
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
        noticed.append("Ctrl-C")

    if before[signal.SIGINT] is not signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, interrupted)
    if several:  # JAX's own service notices SIGTERM, and agrees on the dispatch
        asked = itertools.count(1)

        def must_stop():
            return "SIGTERM" * multihost_utils.reached_preemption_sync_point(next(asked))
    else:
        signal.signal(signal.SIGTERM, terminated)

        def must_stop():
            return "".join(noticed[:1])

    try:
        yield must_stop
    finally:
        signal.signal(signal.SIGINT, before[signal.SIGINT])
        if not several:
            signal.signal(signal.SIGTERM, before[signal.SIGTERM])


def make_mesh(devices=None):
    """One axis, "data", over all devices, or over those given."""
    devices = jax.devices() if devices is None else devices
    # Auto: Flax's BatchNorm and Dropout do not trace under the default, Explicit.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh):
    """Sharding that puts the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put(tree, mesh):
    """Arrays of the host, the same in every process, on each device of a mesh.

    Of several processes ``jax.device_put`` would first gather and compare what all of them have:
    copies of the whole on each device, a wait for the network at each call, and NaN is refused.
    """
    sharding = replicated(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda part: x[part]), tree
    )


def by_batch(mesh):
    """Sharding that divides the first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def cores():
    """Processor cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")  # not on macOS
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def split_processor(*batches):
    """Makes devices of cores, as many as the batches divide over, before JAX is first used.

    XLA works through most convolutions on one core, so that two devices of a core are a third
    faster than one device of two. JAX_NUM_CPU_DEVICES overrides that, and of several processes
    each has one device.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    chosen = jax.config.jax_num_cpu_devices > 0 or _DEVICE_FLAG in os.environ.get("XLA_FLAGS", "")
    if not chosen and not jax.distributed.is_initialized():
        count = max(n for n in range(1, cores() + 1) if not any(batch % n for batch in batches))
        with contextlib.suppress(RuntimeError):  # JAX is in use already
            jax.config.update("jax_num_cpu_devices", count)


def finished(outputs):
    """The outputs of a program over all devices, waited for where these are of the processor.

    Of two such programs in flight one may hold the threads that the other waits for while it waits
    for that one itself, and XLA ends the process after 40 seconds. Calls that wait for their
    program (``split_processor``) wait for its first device alone. It costs no time.
    """
    if jax.default_backend() == "cpu":
        jax.block_until_ready(outputs)
    return outputs
