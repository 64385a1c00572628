"""Slices of stored volumes and of new scans."""

import numpy as np

from mijax.configs import phantom
from mijax.data import Volume, correct_bias
from mijax.data.patches import slice_volume
from mijax.data.sources.phantom import phantom_volume


def test_new_scan_is_corrected_as_a_stored_one_was():
    slices = phantom.get_config("supervised").data.patches
    slices.size, slices.bias_correction = (32, 32), True
    image, _, affine, _ = phantom_volume(0, 0, (32, 32, 4))
    scan = Volume("scan", image, None, affine)
    stored = slice_volume(correct_bias(scan), slices)
    new = slice_volume(scan, slices, stored=False)
    np.testing.assert_array_equal(new.image, stored.image)
    assert np.abs(new.image - slice_volume(scan, slices).image).max() > 0.01
    slices.bias_correction = False
    uncorrected = slice_volume(scan, slices, stored=False)
    np.testing.assert_array_equal(uncorrected.image, slice_volume(scan, slices).image)
