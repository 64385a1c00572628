"""Removal of bias fields: it works, it is the same every time, and sources store it."""

import numpy as np
import pytest
from folders import write_msd

from mijax.data import Volume, correct_bias, open_source


def biased(shape=(30, 36, 4)):
    """A disc with a core, the same with a field over it, and where the disc is."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.hypot(x, y)
    clean = 2 + 100.0 * (radius < 0.9) + 100 * (radius < 0.4)
    clean = clean + np.random.default_rng(0).normal(0, 1, shape)
    field = np.exp(0.4 * x + 0.3 * x * y - 0.2 * y + 0.1 * z)
    affine = np.diag([1.5, 1.5, 8.0, 1.0])
    clean, image = (v[..., None].astype(np.float32) for v in (clean, clean * field))
    return clean, Volume("v", image, None, affine), radius < 0.9


def test_field_is_found():
    clean, volume, inside = biased()
    corrected = correct_bias(volume)

    def drift(image):
        return np.std(np.log(image / clean)[inside])

    assert drift(volume.image) > 0.2
    assert drift(corrected.image) < 0.02
    assert corrected.image.dtype == np.float32
    assert corrected._replace(image=None) == volume._replace(image=None)


def test_same_bytes_every_time_and_input_left_alone():
    _, volume, _ = biased((9, 10, 2))
    before = volume.image.copy()
    np.testing.assert_array_equal(correct_bias(volume).image, correct_bias(volume).image)
    np.testing.assert_array_equal(volume.image, before)


def test_channels_by_themselves():
    _, volume, _ = biased((9, 10, 2))
    one = correct_bias(volume).image
    flat = np.full_like(volume.image, 7)
    both = correct_bias(volume._replace(image=np.concatenate([flat, volume.image], -1))).image
    np.testing.assert_array_equal(both[..., 1:], one)
    np.testing.assert_allclose(both[..., :1], flat, rtol=1e-5)


@pytest.mark.parametrize("shape", [(9, 10, 1), (1, 9, 10), (97, 8, 2)])
def test_thin_and_shrunken_volumes(shape):
    _, volume, _ = biased(shape)
    image = correct_bias(volume).image
    assert image.shape == volume.image.shape and np.isfinite(image).all()


def test_sources_store_it(tmp_path):
    root = write_msd(tmp_path / "set", labelled=1, unlabelled=0, tests=0)

    def volume(**options):
        source = open_source("msd", directory=str(root), cache=str(tmp_path / "cache"), **options)
        return source.volume("case_00")

    plain, stored = volume(), volume(bias_correction=True)
    np.testing.assert_array_equal(stored.image, correct_bias(plain).image)
    assert not np.array_equal(stored.image, plain.image)
    np.testing.assert_array_equal(stored.label, plain.label)
    np.testing.assert_array_equal(volume(bias_correction=False).image, plain.image)
    assert len(list((tmp_path / "cache").iterdir())) == 2
