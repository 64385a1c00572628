"""Sliding windows: they cover an image evenly, and what is found in them is put together right."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from mijax.configs import common
from mijax.data import Volume
from mijax.inference.volumes import mirrored, segment
from mijax.inference.windows import gaussian, windows


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 16, 33), (8, 20, 8)])
def test_windows_cover_an_image_and_overlap_enough(shape, overlap):
    plan = windows(shape, (8, 8, 8), overlap=overlap)
    for starts, size in zip(plan.starts, shape, strict=True):
        assert starts[0] == 0 and starts[-1] == size - 8
        steps = np.diff(starts)
        assert (steps > 0).all() and (steps <= max(1, 8 * (1 - overlap))).all()
        assert not len(steps) or steps.max() - steps.min() <= 1


def test_weights_fall_from_the_middle_and_vanish_nowhere():
    weight = gaussian((4, 8, 9))
    assert weight.max() == 1 == weight[1, 3, 4] and weight.min() > 0
    np.testing.assert_array_equal(weight, weight[::-1, ::-1, ::-1])
    # One deviation, an eighth of a patch, from the middle.
    np.testing.assert_allclose(gaussian((1, 1, 17))[0, 0, 8 + 2], np.exp(-0.5 * (16 / 17) ** 2))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_planes_are_the_gaussian_mean_of_the_windows(size):
    """Voxel by voxel: of windows that each find another value."""
    shape, patch = (7, 6, 9), (4, 4, 4)
    plan = windows(shape, patch)
    value = np.random.default_rng(0).random((len(plan.starts[0]), 50)).astype(np.float32)
    slabs, weight = [], gaussian(patch)
    total, norm = np.zeros(shape), np.zeros(shape)
    for i, first in enumerate(plan.starts[0]):
        corners = [(first, y, x) for y in plan.starts[1] for x in plan.starts[2]]
        for v, corner in zip(value[i], corners, strict=False):
            where = tuple(slice(a, a + 4) for a in corner)
            total[where] += v * weight
            norm[where] += weight
        found = np.broadcast_to(
            value[i, : len(corners), None, None, None, None], (len(corners), *patch, 1)
        )
        slabs.append(iter([found[j : j + size] for j in range(0, len(corners), size)]))
    planes = np.stack(list(plan.blend(slabs)))
    assert planes.shape == (*shape, 1)
    np.testing.assert_allclose(planes[..., 0], total / norm, rtol=1e-5)


def voxelwise(_, images):
    """Probabilities of two classes by the intensity alone."""
    bright = np.clip(np.asarray(images), 0, 1)
    return np.concatenate([1 - bright, bright], -1)


def network(*, patch, batch=3, **slices):
    options = common.get_config("supervised").data.patches
    options.update({"dims": 3, "intensity": "minmax", **slices})
    return SimpleNamespace(predict=voxelwise, slices=options, batch=batch, stride=1, patch=patch)


def volumes():
    draw = np.random.default_rng(1)
    for i, shape in enumerate([(9, 11, 7), (4, 20, 12), (3, 3, 3)]):
        affine = np.diag([1.0, -1.0, 2.0, 1.0]) if i else np.eye(4)[[2, 0, 1, 3]]
        yield Volume(f"v{i}", draw.random((*shape, 1)).astype(np.float32), None, affine)


@pytest.mark.parametrize("plane", ["axial", "sagittal"])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_volumes_are_segmented_whole_whatever_the_windows(fit, plane):
    """What depends on a voxel alone does not depend on where windows lie, or on the batch."""
    net = network(patch=(4, 8, 4), fit=fit, size=(8, 8, 8), plane=plane)
    found = list(segment(net, None, volumes(), probabilities=True))
    for (labels, probs), volume in zip(found, volumes(), strict=True):
        low, high = volume.image.min(), volume.image.max()
        bright = (volume.image[..., 0] - low) / (high - low)
        np.testing.assert_allclose(probs[..., 1], bright, atol=1e-5)
        np.testing.assert_array_equal(labels, bright > 0.5)


def test_volumes_of_one_size_are_restored_to_their_own():
    net = network(patch=(4, 8, 8), fit="resize", size=(8, 16, 8))
    for (labels, probs), volume in zip(
        segment(net, None, volumes(), probabilities=True), volumes(), strict=True
    ):
        assert labels.shape == volume.image.shape[:3]
        np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)


def test_mirror_images_along_each_axis():
    calls = []

    def lopsided(_, images):
        calls.append(np.asarray(images))
        return jnp.cumsum(jnp.asarray(images), axis=1) + jnp.cumsum(jnp.asarray(images), axis=3)

    images = np.random.default_rng(0).random((2, 3, 4, 5, 1)).astype(np.float32)
    found = mirrored(lopsided)(None, images)
    assert len(calls) == 8
    wanted = sum((images.sum(a, keepdims=True) + images) / 2 for a in (1, 3))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
