"""A view: T and T⁻¹ of one draw, and when its gradient may be gathered."""

import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mijax import transforms
from mijax.transforms import validity, warp

KEY = jax.random.key(0)
IMAGES, TANGENT = np.random.default_rng(0).normal(size=(2, 2, 8, 6, 3)).astype(np.float32)
STATIC = ("count", "rotation", "shear", "scale", "flip", "translation", "shape", "dims")

# Compiled once a shape: op by op, the tests would take several times as long.
sample_view = jax.jit(transforms.sample_view, static_argnames=STATIC)
plain_warp = jax.jit(warp)
validity = jax.jit(validity, static_argnums=2)


def gathered(view):
    """Whether the gradients of ``apply`` and ``restore`` are."""
    # That of apply is gathered by the inverse, that of restore by the matrix.
    return tuple(norm <= 2 for norm in view.norms[::-1])


def gathered_within_the_limit(**ranges):
    # Op by op, as the ops are the same for all ranges.
    view = transforms.sample_view(KEY, 2000, flip=0.5, **ranges)
    for norm, matrix in zip(view.norms, (view.matrix, view.inverse), strict=True):
        linear = np.asarray(matrix)[:, :-1, :-1]
        linear = linear[:, -2:, -2:] if view.in_plane else linear
        assert np.abs(linear).sum(-1).max() <= norm + 1e-5
    return gathered(view)


@pytest.mark.parametrize("rotation", [0.0, 20.0, 45.0, 180.0])
@pytest.mark.parametrize("shear", [0.0, 5.0, 30.0])
@pytest.mark.parametrize("low", [0.4, 0.6, 0.71, 0.8, 1.0])
def test_a_gathered_view_keeps_within_the_limit(rotation, shear, low):
    gathered_within_the_limit(rotation=rotation, shear=shear, scale=(low, 1.3))


@pytest.mark.parametrize(
    ("ranges", "gathered"),
    [
        ({"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25)}, (True, True)),  # the methods'
        ({"rotation": 180.0, "scale": (0.71, 1.0)}, (True, True)),
        ({"rotation": 180.0, "scale": (0.7, 1.0)}, (True, False)),
        ({"rotation": 180.0, "scale": (1.0, 1.42)}, (False, True)),
        ({"scale": (0.4, 2.5)}, (False, False)),
        ({"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "dims": 3}, (True, True)),
        ({"rotation": 30.0, "spacing": (10.0, 1.2, 1.2), "dims": 3}, (True, True)),
        ({"rotation": (180.0, 180.0, 180.0), "scale": (0.87, 1.15), "dims": 3}, (True, True)),
        ({"rotation": (180.0, 180.0, 180.0), "scale": (0.86, 1.16), "dims": 3}, (False, False)),
        ({"rotation": (30.0, 10.0, 0.0), "scale": (0.8, 1.25), "dims": 3}, (True, True)),
        ({"rotation": (30.0, 10.0, 0.0), "spacing": (3.0, 1.0, 1.0), "dims": 3}, (False, False)),
        ({"rotation": (30.0, 10.0, 10.0), "spacing": (1.5, 1.0, 1.0), "dims": 3}, (False, False)),
        ({"rotation": (10.0, 5.0, 5.0), "spacing": (1.5, 1.0, 1.0), "dims": 3}, (True, True)),
    ],
    ids=str,
)
def test_all_that_may_be_gathered_is(ranges, gathered):
    assert gathered_within_the_limit(**ranges) == gathered


SPACE = np.random.default_rng(1).normal(size=(2, 4, 8, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("translation", [0.0, 0.2])
@pytest.mark.parametrize(
    ("images", "rotation"),
    [(IMAGES, 30.0), (SPACE, 30.0), (SPACE, (30.0, 10.0, 10.0))],
    ids=["plane", "in-plane", "space"],
)
def test_a_view_is_of_one_draw_and_goes_in_and_out_of_jit(images, rotation, translation):
    shape = images.shape[1:-1]
    ranges = {"rotation": rotation, "scale": (0.9, 1.1), "flip": 0.5}
    view = sample_view(KEY, 2, **ranges, translation=translation, shape=shape)
    coarse = images[(slice(None), *[slice(None, None, 2)] * len(shape))]
    same, there, back, mask = jax.jit(
        lambda v, x: (v, v.apply(x), v.restore(coarse), v.mask(shape))
    )(view, images)
    in_plane = rotation == 30.0
    assert (same.norms, same.frame, same.in_plane) == (view.norms, shape, in_plane)
    matrix, inverse = np.array(view.matrix), np.array(view.inverse)
    assert_array_equal(same.matrix, matrix)
    assert_allclose(matrix @ inverse, [np.eye(len(shape) + 1)] * 2, atol=1e-6)
    moves = np.abs(matrix[:, :-1, -1])
    assert (moves[:, -2:].min() > 0) == (translation > 0)
    assert (moves[:, 0].max() > 0) == (translation > 0 and (len(shape) == 2 or not in_plane))
    assert_allclose(there, plain_warp(images, matrix), atol=1e-6)
    assert_array_equal(mask, validity(matrix, inverse, shape))
    inverse[:, :-1, -1] /= 2  # in pixels twice as large
    assert_allclose(back, plain_warp(coarse, inverse), atol=1e-6)


@pytest.mark.parametrize(
    ("rotation", "translation", "factors"),
    [(20.0, 0.15, (1, 2, 2)), ((20.0, 15.0, 15.0), 0.15, (1, 2, 2)), (20.0, 0.0, (1, 2, 1))],
    ids=str,
)
def test_the_axes_of_a_frame_may_be_pooled_by_different_factors(rotation, translation, factors):
    # Smooth volumes, so that sampling them at half the resolution in-plane changes little.
    z, y, x = np.indices((12, 24, 24)) / 9
    volume = np.stack([np.cos(z + y / 2 + i) * np.sin(x / 2 - z / 2) for i in range(2)])[..., None]
    volume = volume.astype(np.float32)

    def pooled(maps):
        pairs = ((n // f, f) for n, f in zip((12, 24, 24), factors, strict=True))
        return maps.reshape(2, *itertools.chain(*pairs), -1).mean((2, 4, 6))

    @jax.jit
    def there(view, volume, coarse):
        masks = (view.inside(x.shape[1:-1])[..., None] for x in (volume, coarse))
        return view.apply(volume), view.apply(coarse), *masks

    ranges = {"rotation": rotation, "scale": (0.9, 1.1), "translation": translation}
    view = sample_view(KEY, 2, **ranges, shape=(12, 24, 24))
    fine, coarse, inside, inside_coarse = there(view, volume, pooled(volume))
    valid = (pooled(inside) == 1) & (inside_coarse == 1)
    assert valid.mean() > 0.2
    assert_allclose(np.where(valid, pooled(fine) - coarse, 0), 0, atol=0.03)


@pytest.mark.parametrize(
    ("rotation", "shape", "gathered"),
    [
        ((10.0, 5.0, 5.0), (4, 8, 6), True),
        ((10.0, 5.0, 5.0), (4, 4, 3), False),  # 1.3 · 2, in voxels of other proportions
        (10.0, (4, 4, 3), True),  # depth takes no part in it
    ],
    ids=str,
)
def test_a_gradient_is_gathered_where_voxels_of_the_map_allow_it(rotation, shape, gathered):
    view = sample_view(KEY, 2, rotation=rotation, translation=0.1, shape=(4, 8, 6))
    assert max(view.norms) < 2
    probs = np.random.default_rng(2).normal(size=(2, *shape, 1)).astype(np.float32)
    gradient = jax.jit(lambda x: jax.vjp(view.restore, x)[1](x)[0]).trace(probs)
    assert ("scatter" not in str(gradient.jaxpr)) == gathered
    if not gathered:
        return
    zoom = np.append(np.divide(shape, (4, 8, 6)), 1)
    inverse = np.asarray(view.inverse) * np.float32(zoom[:, None] / zoom)
    plain = jax.jit(lambda x: jax.vjp(lambda y: warp(y, inverse), x)[1](x)[0])
    assert_allclose(gradient.lower().compile()(probs), plain(probs), atol=1e-5)


@pytest.mark.parametrize("ranges", [{"scale": (0.8, 1.2)}, {"scale": (0.4, 0.5)}], ids=str)
def test_gradients_are_those_of_the_plain_warp(ranges):
    view = sample_view(KEY, 2, rotation=25.0, **ranges)
    assert gathered(view) == (True, ranges["scale"][0] > 0.5)
    ours, plain = jax.jit(
        lambda x, t: (
            [jax.vjp(f, x)[1](t)[0] for f in (view.apply, view.restore)],
            [jax.vjp(lambda y, m=m: warp(y, m), x)[1](t)[0] for m in (view.matrix, view.inverse)],
        )
    )(IMAGES, TANGENT)
    assert_allclose(ours, plain, atol=1e-5)


def test_views_are_differentiated_forwards_too():
    view = sample_view(KEY, 2, rotation=25.0, scale=(0.8, 1.2))
    assert gathered(view) == (True, True)
    shape = (5, 9)  # cut along one axis, padded along the other
    cotangent = np.random.default_rng(3).normal(size=(2, *shape, 3)).astype(np.float32)

    def moved(x):
        return warp(x, view.matrix, inverse=view.inverse, shape=shape)

    @jax.jit
    def derivatives(x, t):
        (value, pull), (_, pushed) = jax.vjp(moved, x), jax.jvp(moved, (x,), (t,))
        back = jax.linear_transpose(lambda c: pull(c)[0], cotangent)
        return value, pushed, moved(t), pull(cotangent)[0], back(t)[0]

    value, pushed, moved_tangent, pulled, back = derivatives(IMAGES, TANGENT)
    plain = jax.jit(lambda x: warp(x, view.matrix, shape=shape))(IMAGES)
    assert_allclose(value, plain, atol=1e-6)
    assert_allclose(pushed, moved_tangent, atol=1e-6)
    # ⟨J t, c⟩ = ⟨t, Jᵀ c⟩, and the transpose of Jᵀ is J again.
    assert_allclose(np.vdot(pushed, cotangent), np.vdot(TANGENT, pulled), rtol=1e-4)
    assert_allclose(back, pushed, atol=1e-6)


def test_a_gathered_gradient_has_no_scatter_and_maps():
    draw = jax.jit(jax.vmap(lambda key: transforms.sample_view(key, 2, rotation=25.0)))
    views = draw(jax.random.split(KEY, 3))

    def gradient(view):
        return jax.grad(lambda x: (view.apply(x) ** 3).sum())(IMAGES)

    alone, traced = jax.jit(gradient), jax.jit(jax.vmap(gradient)).trace(views)
    one_by_one = [alone(jax.tree.map(lambda x, i=i: x[i], views)) for i in range(3)]
    assert_allclose(traced.lower().compile()(views), one_by_one, atol=1e-6)
    program = str(traced.jaxpr)
    assert "scatter" not in program and "optimization_barrier" in program


def test_a_translation_goes_with_the_resolution():
    ranges = {"rotation": 20.0, "scale": (0.9, 1.1), "translation": 0.25}
    view = sample_view(KEY, 4, **ranges, shape=(32, 48))
    moves = np.asarray(view.matrix)[:, :2, 2]
    assert (np.abs(moves) < 0.25 * np.hypot(32, 48) / 0.9).all() and np.abs(moves).max() > 3
    # Smooth images, so that sampling them at half the resolution changes little.
    rows, columns = np.mgrid[:32, :48] / 16
    image = np.stack([np.cos(rows + i) * np.sin(columns + 2 * i) for i in range(4)])[..., None]
    image = image.astype(np.float32)

    def halved(x):
        return x.reshape(4, 16, 2, 24, 2, 1).mean((2, 4))

    there = jax.jit(lambda v, x: (v.apply(x), v.inside(x.shape[1:3])[..., None]))
    (fine, inside), (coarse, inside_coarse) = there(view, image), there(view, halved(image))
    valid = (halved(inside) == 1) & (inside_coarse == 1)
    assert valid.mean() > 0.4
    assert_allclose(np.where(valid, halved(fine) - coarse, 0), 0, atol=0.03)
    with pytest.raises(ValueError, match="shape of the frame"):
        sample_view(KEY, 1, translation=0.1)
