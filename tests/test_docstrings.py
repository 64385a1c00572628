"""The examples in the docstrings of the public functions say what the functions do."""

import doctest
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

PARTS = ["mijax.losses", "mijax.transforms", "mijax.metrics"]
# Those that a reader meets first have one.
SHOWN = {
    "mijax.losses": {
        "joint_distribution", "kl_divergence", "label_loss", "local_mutual_information",
        "mutual_information", "soft_dice_loss",
    },
    "mijax.transforms": {"augment", "largest_components", "sample_view", "warp"},
    "mijax.metrics": {
        "class_volumes", "dice", "largest_components", "surface_dice", "surface_distances",
    },
}  # fmt: skip


def examples_of(part):
    module = importlib.import_module(part)
    names = {"jax": jax, "jnp": jnp, "np": np} | {n: getattr(module, n) for n in module.__all__}
    finder = doctest.DocTestFinder(recurse=False)
    found = {n: finder.find(names[n], n, globs=names) for n in module.__all__}
    return {n: tests[0] for n, tests in found.items() if tests and tests[0].examples}


EXAMPLES = {(part, name): test for part in PARTS for name, test in examples_of(part).items()}


@pytest.mark.parametrize("example", EXAMPLES, ids=".".join)
def test_an_example_gives_what_it_says(example):
    printed = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(EXAMPLES[example], out=printed.append).failed == 0, "".join(printed)


@pytest.mark.parametrize("part", PARTS)
def test_the_main_functions_have_an_example(part):
    assert {name for p, name in EXAMPLES if p == part} >= SHOWN[part]
