"""mijax, timed: what benchmarks.speed starts. Needs JAX, Flax and Optax alone."""

import argparse
import functools
import itertools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.worker import (
    Case,
    Settings,
    probability_maps,
    serve,
    training_slices,
    volumes,
)
from mijax import parallel
from mijax.losses import cross_entropy, kl_divergence, local_mutual_information
from mijax.losses.labels import label_loss
from mijax.methods import Unlabelled, build
from mijax.models import UNet
from mijax.training.batches import PerRole, TrainingSet
from mijax.training.feed import stream
from mijax.training.optimizer import learning_rate, make_optimizer
from mijax.training.state import make_init
from mijax.training.step import make_train_step
from mijax.transforms import augment, warp


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("settings")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps-per-dispatch", type=int, default=1)
    parser.add_argument("--one-device", action="store_true", help="not one a processor core")
    options = parser.parse_args()
    if cache := os.environ.get("BENCHMARK_CACHE"):
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    settings = Settings(**json.loads(options.settings))
    if not options.one_device:  # as the commands do
        parallel.split_processor(settings.labelled, settings.unlabelled)
    serve(functools.partial(make_case, settings, options), device_memory=_device_memory)


def make_case(settings, options, name):
    """The ``Case`` of that name."""
    if name == "product":
        square = jnp.ones((2048, 2048), options.precision)
        return _case(jax.jit(lambda a, b: (a @ b)[0, 0]), square, square)
    if name == "copy":
        long = jnp.ones(2**26)
        return _case(jax.jit(lambda x: x + 1), long, compare=False)
    p, q, matrix = (jnp.asarray(x) for x in probability_maps(settings))
    if name == "mutual information":
        return _gradient(lambda p, q: local_mutual_information(p, q, radius=settings.radius), p, q)
    if name == "KL consistency":
        return _gradient(lambda p, q: kl_divergence(jnp.log(p), q), p, q)
    if name == "warp of probabilities":
        return _gradient(
            lambda p, q, m: jnp.mean(warp(p, m, inverse=jnp.swapaxes(m, -1, -2)) * q), p, q, matrix
        )
    if name == "augmentation":
        image, label, _ = training_slices(settings)
        rows = image[: settings.labelled], label[: settings.labelled]
        ranges = {"crop": (settings.size,) * 2, "rotation": settings.rotation}
        function = jax.jit(lambda key, *rows: augment(key, *rows, **ranges)[0].mean())
        return _case(function, jax.random.key(0), *map(jnp.asarray, rows), compare=False)
    if name.startswith("volumes"):
        return _of_volumes(settings, options, name)
    steps = {
        "step": ("local_mi", False),
        "step, shared statistics": ("local_mi", True),
        "step, supervised": ("supervised", None),
        "step, streamed": ("local_mi", False),
        "step, three seeds": ("local_mi", False),
    }
    if name not in steps:
        raise ValueError(f"no case {name!r}")
    streamed, seeds = name == "step, streamed", 3 if name == "step, three seeds" else 0
    return _step(settings, options, *steps[name], streamed=streamed, seeds=seeds)


def _step(settings, options, method, shared, *, streamed, seeds):
    """The train step of a run, from the data set, there or on the host, to the new weights.

    With ``seeds`` of as many runs, as one program.
    """
    mesh = parallel.make_mesh()
    hyperparameters = {"shear": settings.shear, "scale": settings.scale, "radius": settings.radius}
    method = build(
        method, **({} if shared is None else {**hyperparameters, "shared_statistics": shared})
    )
    model = UNet(settings.classes, settings.widths, dtype=jnp.dtype(options.precision))
    schedule = learning_rate("cosine", peak=1e-3, warmup_steps=100, steps=30_000)
    optimizer = make_optimizer("adam", schedule, weight_decay=0.0)
    image, label, unlabelled = training_slices(settings)
    position = np.zeros(len(unlabelled), np.float32)
    volume = np.zeros(len(unlabelled), np.int32)
    rest = Unlabelled(unlabelled, position, volume) if method.unlabelled else None
    training_set = TrainingSet(image, label, rest)
    batches = PerRole(settings.labelled, settings.unlabelled, 0)
    train_step = make_train_step(
        model,
        method,
        optimizer,
        mesh=mesh,
        label_loss=label_loss,
        batches=batches,
        augmentation={"crop": (settings.size,) * 2, "rotation": settings.rotation},
        length=options.steps_per_dispatch,
        streamed=streamed,
    )
    init = make_init(model, method, optimizer, (settings.size, settings.size, 1))
    init = functools.partial(init, slices=160)
    if seeds:
        init, train_step = jax.vmap(init), jax.vmap(train_step, in_axes=(0, None))
    seed = jnp.arange(seeds) if seeds else 0
    state = jax.jit(init, out_shardings=parallel.replicated(mesh))(seed)
    if streamed:
        calls = [(i, options.steps_per_dispatch) for i in range(10**5)]
        taken = stream(training_set, state.key, calls, mesh=mesh, batches=batches)
    else:
        taken = itertools.repeat(jax.device_put(training_set, parallel.replicated(mesh)))
    lowered = jax.jit(train_step, donate_argnums=0).lower(state, next(taken))
    compiled = lowered.compile()

    def run():
        nonlocal state
        state, logs = compiled(state, next(taken))
        return float(logs["loss"].mean())

    return Case(run, options.steps_per_dispatch * max(seeds, 1), *_cost(lowered, compiled))


def _of_volumes(settings, options, name):
    """The gradient of a network in all its weights, or its prediction, of two volumes."""
    model = UNet(settings.classes, settings.widths, dtype=jnp.dtype(options.precision))
    images, labels = map(jnp.asarray, volumes(settings))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    draw = np.random.default_rng(0)  # which need not be compiled
    variables = jax.tree.map(lambda x: draw.uniform(0.01, 0.1, x.shape).astype(x.dtype), shapes)
    if name == "volumes, prediction":
        predict = jax.jit(lambda v, x: model.apply(v, x, train=False)[0].argmax(-1))
        return _case(predict, variables, images, compare=False)

    def loss(params):
        found, _ = model.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        return cross_entropy(found[0], labels)

    return _case(jax.jit(jax.value_and_grad(loss)), variables["params"], compare=False)


def _gradient(function, *arguments):
    """Value of a function and its gradients with respect to the first two arguments."""
    return _case(jax.jit(jax.value_and_grad(function, argnums=(0, 1))), *arguments)


def _case(function, *arguments, compare=True):
    lowered = function.lower(*arguments)
    compiled = lowered.compile()

    def run():
        out = jax.block_until_ready(compiled(*arguments))
        return float(jax.tree.leaves(out)[0]) if compare else None

    return Case(run, 1, *_cost(lowered, compiled))


def _cost(lowered, compiled):
    """FLOPs of the program as written, and bytes that it moves as compiled."""
    flops = (lowered.cost_analysis() or {}).get("flops")
    return flops, (compiled.cost_analysis() or {}).get("bytes accessed")


def _device_memory():
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


if __name__ == "__main__":
    main()
