"""Schedules at their points, and SGD against the update of PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.training.optimizer import SCHEDULES, learning_rate, make_optimizer


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_over_the_warm_up_and_end_at_0(schedule):
    rate = learning_rate(schedule, peak=0.2, warmup_steps=10, steps=110)
    assert_allclose([rate(0), rate(5), rate(10)], [0.02, 0.11, 0.2], rtol=1e-6)
    t = np.array([0.25, 0.5, 0.75])
    expected = {"cosine": 0.1 * (1 + np.cos(np.pi * t)), "polynomial": 0.2 * (1 - t) ** 0.9}
    assert_allclose([rate(10 + 100 * x) for x in t], expected[schedule], rtol=1e-5)
    assert rate(110) == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_warm_up_the_first_step_has_the_peak(schedule):
    assert_allclose(learning_rate(schedule, peak=0.3, warmup_steps=0, steps=9)(0), 0.3)


def test_sgd_is_that_of_pytorch():
    optimizer = make_optimizer("sgd", lambda step: 0.1, weight_decay=0.01, momentum=0.9)
    w, buffer = np.array([1.0, -2.0]), 0.0
    params, state = jnp.array(w), optimizer.init(jnp.array(w))
    for gradient in (np.array([0.5, 1.0]), np.array([-1.0, 0.3]), np.array([0.2, 0.2])):
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        params = params + updates
        buffer = 0.9 * buffer + gradient + 0.01 * w
        w = w - 0.1 * buffer
        assert_allclose(params, w, rtol=1e-5)
