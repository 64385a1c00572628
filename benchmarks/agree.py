"""Whether an accelerator computes what the CPU does: python -m benchmarks.agree [METHOD ...]

Three train steps of each method, the same slices and seeds on both, in float32: the relative
difference of every value in the log. With all products in full precision the first step agrees
to rounding; as JAX sets them for speed (TF32 on a GPU, bfloat16 passes on a TPU), to theirs.
Methods compile side by side, so seconds say nothing of speed.
"""

import functools
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import jax
import numpy as np

from mijax.configs import common
from mijax.errors import lines_of
from mijax.methods import Unlabelled
from mijax.training.batches import TrainingSet
from mijax.training.build import build

METHODS = (
    "supervised", "local_mi", "mean_teacher", "fixmatch", "global_local_mi", "uamt",
    "cross_pseudo", "boundary_iic",
)  # fmt: skip
_STEPS, _SIZE = 3, 32


def main():
    names = sys.argv[1:] or METHODS
    accelerator = jax.devices()[0]
    print(f"{accelerator.device_kind} against {jax.devices('cpu')[0].device_kind}", flush=True)
    with ThreadPoolExecutor(len(names)) as threads:
        lines = [threads.submit(_compare, accelerator, name) for name in names]
        for line in as_completed(lines):
            print(line.result(), flush=True)


def _compare(accelerator, name):
    started = time.perf_counter()
    try:
        exact = logs_of(name, jax.devices("cpu")[0], "highest")
        text = [f"{name:16}"]
        for precision in ("highest", None):
            found = logs_of(name, accelerator, precision)
            first, last = (
                max(abs(f[i] - e[i]) / max(abs(e[i]), 1e-3) for f, e in zip(*both, strict=True))
                for both in [(found.values(), exact.values())]
                for i in (0, -1)
            )
            text.append(f"{precision or 'default'}: step 1 {first:.1e}, step {_STEPS} {last:.1e}")
        loss = ", ".join(f"{value:.5f}" for value in exact["loss"])
        return "; ".join([*text, f"loss {loss}", f"{time.perf_counter() - started:.0f} s"])
    except Exception as error:  # one method is no reason not to look at the others
        return f"{name:16} failed: {type(error).__name__}: {lines_of(error)[0]}"


def logs_of(name, device, precision):
    """{name: (steps,)} of some train steps of a method on one device."""
    config = common.get_config(name)
    config.data.patches.size = (_SIZE, _SIZE)
    config.model.widths = (8, 16, 32)
    config.labelled_batch = config.unlabelled_batch = 4
    config.warmup_steps = 0
    parts_on = functools.partial(build, config, classes=("a", "b", "c", "d"), channels=1)
    with jax.default_matmul_precision(precision):
        training_set = jax.device_put(_slices(), device)
        # One state for both, made on the CPU.
        state = parts_on(devices=jax.devices("cpu")[:1]).init(0, len(training_set.unlabelled.image))
        state = jax.device_put(state, device)
        parts = parts_on(devices=[device])
        step, logs = parts.train_step(1), []
        for _ in range(_STEPS):
            state, values = step(state, training_set)
            logs.append(jax.device_get(values))
    return {key: np.concatenate([log[key] for log in logs]) for key in logs[0]}


def _slices():
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:_SIZE, :_SIZE] / _SIZE - 0.5
    centre = draw.uniform(-0.2, 0.2, (2, 32, 1, 1))
    label = np.clip(4 - 10 * np.hypot(rows - centre[0], columns - centre[1]), 0, 3).astype(np.int32)
    image = (label / 4 + draw.normal(scale=0.1, size=label.shape))[..., None].astype(np.float32)
    position = np.linspace(0, 1, 16, dtype=np.float32)
    volume = np.repeat(np.arange(4, dtype=np.int32), 4)
    return TrainingSet(image[:16], label[:16], Unlabelled(image[16:], position, volume))


if __name__ == "__main__":
    main()
