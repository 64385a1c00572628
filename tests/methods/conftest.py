"""What the tests of methods share; oracles.py can be imported in every import mode of pytest."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracles import CHANNELS, LABELLED, SIZE, UNLABELLED, K, make_featured, make_network

from mijax.methods import Batch


@pytest.fixture
def network():
    return make_network(0)


@pytest.fixture
def featured():
    return make_featured(0)


@pytest.fixture
def teacher():
    return make_network(5)


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    image, unlabelled = (
        rng.normal(size=(n, SIZE, SIZE, CHANNELS)).astype(np.float32) + n
        for n in (LABELLED, UNLABELLED)
    )
    return Batch(image, rng.integers(K, size=image.shape[:3]), unlabelled)
