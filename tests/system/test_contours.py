"""The picture of a case in TensorBoard: which slice, which way up, which outlines."""

import nibabel as nib
import numpy as np
import pytest

from mijax.data import Volume
from mijax.inference.contours import contours

WHITE, BLACK, ORANGE, BLUE = (255, 255, 255), (0, 0, 0), (213, 94, 0), (86, 180, 233)


def make(shape=(32, 32, 6), spacing=(1.0, 1.0, 4.0), axcodes="RAS"):
    """A case whose annotation is largest in the third slice, and a label map beside it."""
    truth, found = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    truth[4:8, 20:28, 1] = 1
    truth[4:12, 20:28, 2] = 1  # left and in front: x to the right, y to the front
    found[20:28, 4:12, 2] = 2
    image = np.zeros((*shape, 1), np.float32)
    image[16:] = 1  # the right half of the patient
    affine = np.diag([*spacing, 1.0])
    ras, target = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axcodes))
    turn = nib.orientations.ornt_transform(ras, target)
    arrays = [nib.orientations.apply_orientation(a, turn) for a in (image, truth, found)]
    affine = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    return Volume("case", arrays[0], arrays[1], affine), arrays[2]


def places(picture, colour):
    return np.argwhere((picture == colour).all(-1))


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLP"])
def test_which_way_up_and_which_outlines(axcodes):
    volume, labels = make(axcodes=axcodes)
    picture = contours(volume, labels, plane="axial")
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    # The right side of the patient is on the left; the front is up.
    assert (picture[250, :120] == 255).all() and (picture[250, 136:] == 0).all()
    rows, columns = places(picture, BLUE).T
    assert (rows.min(), rows.max()) == (256 - 12 * 8, 256 - 4 * 8 - 1)
    assert (columns.min(), columns.max()) == (256 - 28 * 8, 256 - 20 * 8 - 1)
    assert not len(places(picture, ORANGE))  # predicted nowhere, and the annotation is dashed
    edge = picture[256 - 28 * 8, 256 - 12 * 8 : 256 - 4 * 8]
    assert {tuple(pixel) for pixel in edge.tolist()} == {WHITE, BLACK}


def test_intensities_of_any_unit():
    """Diffusion in m²/s is of the order of 1e-9."""
    volume, labels = make()
    small = volume._replace(image=np.float32(1e-9) * volume.image)
    pictures = [contours(v, labels, plane="axial") for v in (volume, small)]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_pixels_are_square_in_millimetres(plane):
    volume, labels = make((30, 32, 8), (2.0, 1.0, 4.0))
    picture = contours(volume, labels, plane=plane)
    sides = {"axial": (32, 60), "coronal": (32, 60), "sagittal": (32, 32)}[plane]
    assert picture.shape[:2] == tuple(round(256 * side / max(sides)) for side in sides)


def test_nothing_to_see():
    volume, labels = make()
    picture = contours(volume._replace(label=0 * volume.label), 0 * labels, plane="axial")
    assert set(np.unique(picture)) == {0, 255}
