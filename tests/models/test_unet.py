"""The U-Net: shapes and names, its size, its precision, and its BatchNorm."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import symbolic_shape
from numpy.testing import assert_allclose, assert_array_equal

from mijax.models import UNet

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype(np.float32)


def shapes_of(model, shape):
    """Shapes of (logits, features) and of the variables, without a computation."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(KEY, x, train=False), images)
    return jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images), variables


def variables_of(model):
    """Kernels as large as those of He et al., and statistics as they begin, drawn by NumPy."""
    shapes = jax.eval_shape(lambda: model.init(KEY, IMAGES, train=False))
    rng = np.random.default_rng(1)

    def parameter(x):
        kernel = rng.normal(size=x.shape) * np.sqrt(2 / max(np.prod(x.shape[:-1]), 1))
        return np.float32(kernel if len(x.shape) > 1 else 1 + 0.1 * kernel)

    def statistic(path, x):
        return np.full(x.shape, path[-1].key == "var", np.float32)

    return {
        "params": jax.tree.map(parameter, shapes["params"]),
        "batch_stats": jax.tree.map_with_path(statistic, shapes["batch_stats"]),
    }


@pytest.mark.parametrize("channels", [1, 2])
def test_shapes_and_names_of_the_features(channels):
    (logits, features), _ = shapes_of(UNet(4), (3, 32, 48, channels))
    assert logits.shape == (3, 32, 48, 4)
    assert {name: x.shape[1:] for name, x in features.items()} == {
        "Conv1": (32, 48, 16),
        "Conv2": (16, 24, 32),
        "Conv3": (8, 12, 64),
        "Conv4": (4, 6, 128),
        "Conv5": (2, 3, 256),
        "bottleneck": (2, 3, 256),
        "Up_conv5": (4, 6, 128),
        "Up_conv4": (8, 12, 64),
        "Up_conv3": (16, 24, 32),
        "Up_conv2": (32, 48, 16),
    }


@pytest.mark.parametrize(
    ("widths", "channels", "k"), [((16, 32, 64, 128, 256), 1, 4), ((4, 8), 2, 3), ((5,), 1, 2)]
)
def test_number_of_parameters(widths, channels, k):
    def conv(a, b):
        return 9 * a * b + 2 * b  # a 3×3 kernel, and the scale and shift of its BatchNorm

    expected = k * widths[0] + k
    for before, width in zip((channels, *widths), widths, strict=False):
        expected += conv(before, width) + conv(width, width)
    for upper, lower in itertools.pairwise(widths):
        expected += conv(lower, upper) + conv(2 * upper, upper) + conv(upper, upper)
    stride = 2 ** (len(widths) - 1)
    _, variables = shapes_of(UNet(k, widths=widths), (1, stride, stride, channels))
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == expected
    if len(widths) == 5:
        assert expected == 2_160_180


@pytest.mark.parametrize("size", [(30, 32), (32, 40), (32, 32, 8)])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(size):
    assert UNet(2).stride() == (16, 16) and UNet(2, widths=(4, 8)).stride(3) == (2, 2, 2)
    with pytest.raises(ValueError, match=r"not a multiple of \(16, 16"):
        shapes_of(UNet(2), (1, *size, 1))
    with pytest.raises(ValueError, match=r"not a multiple of \(4, 2\)"):
        shapes_of(UNet(2, widths=(2, 2, 2), strides=((2, 1), (2, 2))), (1, 6, 4, 1))


@pytest.mark.parametrize("shape", [(8, 8, 1), (1, 8, 8, 8, 8, 1)])
def test_images_of_another_rank_are_refused(shape):
    with pytest.raises(ValueError, match="neither .b, h, w, c. nor .b, d, h, w, c."):
        shapes_of(UNet(2, widths=(2, 2)), shape)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1, 4, 4, 4, 1), {}),
        ((1, 4, 4, 1), {"strides": ((1, 2),)}),
        ((1, 4, 4, 1), {"widths": (2,)}),
    ],
)
def test_blocks_are_of_two_axes_and_two_levels(shape, options):
    with pytest.raises(ValueError, match="blocks are of 2×2 pixels"):
        shapes_of(UNet(2, **{"widths": (2, 2), "blocks": True} | options), shape)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("shape", ["b, 2*h, 2*w, 1", "b, d, 2*h, 2*w, 1"])
def test_it_is_one_program_for_all_sizes(shape, norm):
    shape = symbolic_shape(shape)
    model = UNet(3, widths=(2, 3), strides=((1, 2, 2)[5 - len(shape) :],), norm=norm)
    logits = shapes_of(model, shape)[0][0]
    assert logits.shape == (*shape[:-1], 3)


def test_only_activations_are_of_the_compute_type():
    model = UNet(3, widths=(4, 8), dtype=jnp.bfloat16)
    (logits, features), variables = shapes_of(model, IMAGES.shape)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in features.values()} == {jnp.dtype(jnp.bfloat16)}
    with jax.enable_x64(True):
        in_x64 = shapes_of(model, IMAGES.shape)[1]
    for each in (variables, in_x64):
        assert {x.dtype for x in jax.tree.leaves(each)} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def trained():
    """A small network, its variables, and what training mode makes of a batch."""
    model = UNet(3, widths=(4, 8), dropout=0.5)
    variables = variables_of(model)

    @jax.jit
    def train(key):
        return model.apply(
            variables, IMAGES, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )

    predict = jax.jit(lambda variables, x: model.apply(variables, x, train=False)[0])
    return variables, train, predict


def test_prediction_draws_nothing_and_looks_at_each_image_alone(trained):
    variables, _, predict = trained
    logits = predict(variables, IMAGES)
    assert_array_equal(logits, predict(variables, IMAGES))
    assert_allclose(np.asarray(logits)[::-1], predict(variables, IMAGES[::-1]), atol=1e-5)
    other = np.stack([IMAGES[0], 5 * IMAGES[1]])
    assert_allclose(predict(variables, other)[0], logits[0], atol=1e-5)


def test_training_drops_out_by_its_key(trained):
    _, train, _ = trained
    (one, _), _ = train(KEY)
    (same, _), _ = train(KEY)
    (other, _), _ = train(jax.random.key(1))
    assert_array_equal(one, same)
    assert np.any(np.asarray(one) != np.asarray(other))


def test_running_statistics_move_a_tenth_of_the_way_to_those_of_the_batch(trained):
    variables, train, _ = trained
    _, updated = train(KEY)
    # The first convolution by hand, zero-padded.
    kernel = np.asarray(variables["params"]["Conv1a"]["kernel"], np.float64)[:, :, 0]
    padded = np.pad(IMAGES[..., 0].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    x = sum(
        padded[:, i : i + 8, j : j + 12, None] * kernel[i, j] for i in range(3) for j in range(3)
    )
    statistics = updated["batch_stats"]["Conv1a_norm"]
    assert_allclose(statistics["mean"], 0.1 * x.mean((0, 1, 2)), atol=1e-6)
    assert_allclose(statistics["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)
    assert updated["batch_stats"].keys() == variables["batch_stats"].keys()
    for before, after in zip(
        *(jax.tree.leaves(v["batch_stats"]) for v in (variables, updated)), strict=True
    ):
        assert np.all(np.asarray(before) != np.asarray(after))


def test_what_the_encoder_hands_on_may_be_changed_on_the_way():
    seen = []

    def perturb(name, feature):
        seen.append(name)
        return feature * np.array([1, 0], np.float32)[:, None, None, None]

    model = UNet(3, widths=(4, 8, 8))
    images = np.concatenate([IMAGES[:1]] * 2)

    variables = variables_of(model)

    @jax.jit
    def with_and_without():
        changed = model.apply(variables, images, train=False, perturb=perturb)
        return *changed, *model.apply(variables, images, train=False)

    logits, features, whole, plain = jax.tree.map(np.asarray, with_and_without())
    assert set(seen) == {"Conv1", "Conv2", "Conv3"}
    assert_allclose(logits[0], whole[0], atol=1e-5)
    assert np.abs(logits[1] - whole[1]).max() > 0.1
    # The encoder itself is not changed; with nothing handed on every place looks alike.
    for name in seen:
        assert_allclose(features[name], plain[name], atol=1e-5)
    inner = logits[1, 4:-4, 4:-4]
    assert_allclose(inner, np.broadcast_to(inner[:1, :1], inner.shape), atol=1e-5)


def test_dropout_in_the_encoder_is_of_channels_and_of_its_level():
    model = UNet(3, widths=(64, 8), encoder_dropout=(0.5, 0.0))
    variables = variables_of(model)

    @jax.jit
    def between(key):
        """What comes out of the first convolution, and what goes into the second."""
        _, state = model.apply(
            variables, IMAGES, train=True, rngs={"dropout": key}, capture_intermediates=True,
            mutable=["batch_stats", "intermediates"],
        )  # fmt: skip
        found = state["intermediates"]
        dropped = [found[n]["__call__"][0] for n in sorted(found) if n.startswith("Dropout")]
        return found["Conv1a_norm"]["__call__"][0], dropped

    x, dropped = between(KEY)
    (kept,) = (d for d in dropped if d.shape == x.shape and (d != x).any())
    stays = np.asarray((kept != 0).any((1, 2), keepdims=True))
    assert_allclose(kept, np.where(stays, 2 * np.asarray(x), 0), rtol=1e-6)
    assert 0.3 < stays.mean() < 0.7


def test_blocks_make_the_same_network():
    """That of a TPU: values, features, statistics and gradients."""
    plain, blocks = (UNet(3, widths=(4, 8), blocks=blocks) for blocks in (False, True))
    variables = variables_of(plain)
    of_blocks = jax.eval_shape(lambda x: blocks.init(KEY, x, train=False), IMAGES)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, of_blocks)

    def results(model):
        def f(params, images):
            (logits, features), stats = model.apply(
                variables | {"params": params}, images, train=True, streams=(0, 1),
                mutable=["batch_stats"], perturb=lambda name, x: x + x[:, :1, :1],
            )  # fmt: skip
            return jnp.sum(jax.nn.softmax(logits)[..., 0] ** 2), (logits, features, stats)

        return jax.value_and_grad(f, argnums=(0, 1), has_aux=True)(variables["params"], IMAGES)

    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=2e-5),
        jax.jit(lambda: results(plain))(),
        jax.jit(lambda: results(blocks))(),
    )


def test_levels_may_be_computed_again_for_the_gradient():
    """The same values, statistics, drops and gradients."""

    def gradient(remat):
        model = UNet(3, widths=(4, 8), dropout=0.3, encoder_dropout=(0.2, 0.2), remat=remat)
        variables = variables_of(model)

        def loss(params):
            (logits, features), stats = model.apply(
                variables | {"params": params}, IMAGES, train=True, mutable=["batch_stats"],
                rngs={"dropout": KEY},
            )  # fmt: skip
            return jnp.sum(jnp.cos(logits)), (features, stats)

        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(variables["params"])
        return gradient.compile()(variables["params"]), gradient.as_text().count("barrier")

    (kept, few), (again, many) = gradient(False), gradient(True)
    assert few < many  # which keep XLA from finding that it was computed before
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-4), kept, again)
