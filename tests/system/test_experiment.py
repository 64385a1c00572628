"""Slices of stored volumes and of new scans."""

import numpy as np

from configs import phantom
from mijax.data import Volume, correct_bias
from mijax.data.phantom import phantom_volume
from mijax.experiment import slice_volume


def test_new_scan_is_corrected_as_a_stored_one_was():
    data = phantom.get_config("supervised").data
    data.size, data.bias_correction = (32, 32), True
    image, _, affine, _ = phantom_volume(0, 0, (32, 32, 4))
    scan = Volume("scan", image, None, affine)
    stored = slice_volume(correct_bias(scan), data)
    new = slice_volume(scan, data, stored=False)
    np.testing.assert_array_equal(new.image, stored.image)
    assert np.abs(new.image - slice_volume(scan, data).image).max() > 0.01
    data.bias_correction = False
    uncorrected = slice_volume(scan, data, stored=False)
    np.testing.assert_array_equal(uncorrected.image, slice_volume(scan, data).image)
