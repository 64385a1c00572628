"""Deep supervision: the label loss of coarser logits, by hand, on top of any method that can."""

import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import KEY, call, forward, start_with

from mijax import losses, methods
from mijax.errors import UserError
from mijax.models import UNet

METHODS = [("supervised", {}), ("entropy", {}), ("mean_teacher", {})]


def coarse(factor, axes):
    return tuple(slice(factor // 2, None, factor) for _ in range(axes))


def at_the_middle(label, factor):
    """(b, h, w) -> at 1 / factor of the size, of the two in the middle one or the other."""
    first, last = (factor - 1) // 2, factor // 2
    small = label[:, last::factor, last::factor]
    for i, j in itertools.product(*map(range, small.shape[1:])):
        if (i + j) % 2 == 0:
            small = small.at[:, i, j].set(label[:, first + factor * i, first + factor * j])
    return small


def deep_forward(network, *streams, **options):
    """As ``forward``, with logits at half and at a quarter of the size: of the pixels there."""
    outputs = forward(network, *streams, **options)
    return [
        o._replace(
            features={
                "bottleneck": o.logits,
                "logits2": 2 * o.logits[:, *coarse(2, o.logits.ndim - 2)],
                "logits3": 3 * o.logits[:, *coarse(4, o.logits.ndim - 2)],
            }
        )
        for o in outputs
    ]


def value_of(method, network, batch, memory, forward=deep_forward):
    return call(method, {"network": network}, memory, batch, forward=forward)


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_terms_of_the_coarser_levels(network, teacher, batch, name, options):
    plain = methods.build(name, **options)
    method = methods.with_deep_supervision(plain)
    _, memory = method.init(KEY, start_with(teacher))

    @jax.jit
    def found(network, batch, memory):
        (alone, aux_alone), (value, aux) = (
            value_of(one, network, batch, memory) for one in (plain, method)
        )
        [output] = deep_forward(network, batch.image, key=KEY)
        terms = [
            losses.cross_entropy(output.features[f"logits{level}"], at_the_middle(batch.label, n))
            for level, n in ((2, 2), (3, 4))
        ]
        return alone, aux_alone.logs, value, aux.logs, terms[0] / 2 + terms[1] / 4

    alone, logs_alone, value, logs, wanted = found(network, batch, memory)
    assert_allclose(logs["deep_supervision"], wanted, rtol=1e-5)
    assert_allclose(value, alone + wanted, rtol=1e-5)
    assert logs.keys() == logs_alone.keys() | {"deep_supervision"}


def test_what_has_none(network, batch):
    with pytest.raises(ValueError, match="learns without labels has no use for deep supervision"):
        methods.with_deep_supervision(methods.build("position_contrast"))
    supervised = methods.with_deep_supervision(methods.build("supervised"))
    with pytest.raises(UserError, match="network with logits of several levels"):
        jax.eval_shape(lambda: value_of(supervised, network, batch, {}, forward=forward))
    copy_paste = methods.with_deep_supervision(methods.build("copy_paste", pretrain_steps=0))
    _, memory = copy_paste.init(KEY, start_with(network))
    with pytest.raises(UserError, match="labelled images as they are, and the method shows others"):
        jax.eval_shape(lambda: value_of(copy_paste, network, batch, memory))


@pytest.mark.parametrize(
    ("widths", "strides", "sizes"),
    [
        ((2, 3, 4), (), {"logits2": (8, 4)}),
        ((2, 3, 4, 5), (), {"logits2": (8, 4)}),
        ((2, 3, 4, 5, 6), (), {"logits2": (8, 4), "logits3": (4, 2)}),
        ((2, 3, 4), ((1, 2, 2), (2, 2, 2)), {"logits2": (4, 8, 4)}),
    ],
)
def test_logits_of_the_network(widths, strides, sizes):
    """All levels of the decoder but the finest and, of several, the coarsest."""
    images = np.zeros((1, *((4,) if strides else ()), 16, 8, 1), np.float32)
    if len(widths) == 5:
        images = np.zeros((1, 16, 16, 1), np.float32)
        sizes = {"logits2": (8, 8), "logits3": (4, 4)}
    model = UNet(3, widths=widths, strides=strides, deep_supervision=True)
    (logits, features), variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), images, train=False)
    )
    assert logits.shape == (*images.shape[:-1], 3)
    found = {n: x.shape for n, x in features.items() if n.startswith("logits")}
    assert found == {name: (1, *size, 3) for name, size in sizes.items()}
    assert {f"Deep{name[-1]}_1x1" for name in sizes} <= set(variables["params"])
