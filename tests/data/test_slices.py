"""Slices and back: geometry for every orientation, intensities, and refused options."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mijax.data import Volume, along_depth, native_slice, slice_shape, to_native, to_slices
from mijax.data.grid import resize_labels
from mijax.errors import UserError

AXCODES = [
    "".join(signs)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for signs in itertools.product(*order)
]
OPTIONS = {"size": 24, "fit": "pad", "spacing": None, "plane": "axial", "intensity": "minmax"}


def make_volume(shape=(13, 17, 6), spacing=(0.8, 1.1, 5.0), *, channels=1, seed=0) -> Volume:
    random = np.random.default_rng(seed)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-20, 30, 5)
    image = random.normal(100, 20, (*shape, channels)).astype(np.float32)
    return Volume("v", image, random.integers(0, 3, shape).astype(np.uint8), affine)


def reoriented(volume: Volume, axcodes: str) -> Volume:
    """The same volume as a scanner with these axes would store it, by nibabel."""
    target = nib.orientations.axcodes2ornt(axcodes)
    start = nib.io_orientation(volume.affine)
    change = nib.orientations.ornt_transform(start, target)
    image = nib.Nifti1Image(volume.image, volume.affine).as_reoriented(change)
    label = nib.orientations.apply_orientation(volume.label, change)
    return Volume("v", np.asarray(image.dataobj), label, image.affine)


def one_hot(label: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[label]


def blobs(shape) -> np.ndarray:
    """Two smooth structures, one inside the other, with boundaries off the grid."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    radius = np.sqrt(sum((a - 0.07) ** 2 for a in axes))
    return np.where(radius < 0.4, 2, np.where(radius < 0.75, 1, 0)).astype(np.uint8)


def test_there_are_48_orientations():
    assert len(set(AXCODES)) == 48


@pytest.mark.parametrize("axcodes", AXCODES)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_all_orientations_give_the_same_slices_and_return(axcodes, plane):
    reference = make_volume(channels=2)
    volume = reoriented(reference, axcodes)
    assert "".join(nib.aff2axcodes(volume.affine)) == axcodes
    options = OPTIONS | {"plane": plane}
    slices = to_slices(volume, **options)
    expected = to_slices(reference, **options)
    np.testing.assert_array_equal(slices.image, expected.image)
    np.testing.assert_array_equal(slices.label, expected.label)
    native = to_native(one_hot(slices.label), slices.grid)
    assert native.dtype == np.float32
    np.testing.assert_array_equal(native.argmax(-1), volume.label)


def test_spacing_follows_its_axis():
    """0.8 × 1.1 mm pixels at 0.5 mm, whatever the order of the axes in the file."""
    options = OPTIONS | {"size": 40, "spacing": 0.5}
    for axcodes in ("RAS", "SLP", "AIL"):
        slices = to_slices(reoriented(make_volume(), axcodes), **options)
        assert slices.grid.size == (round(13 * 0.8 / 0.5), round(17 * 1.1 / 0.5))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_axes_of_a_plane(plane):
    volume = make_volume((8, 10, 6))
    slices = to_slices(volume, **OPTIONS | {"plane": plane, "size": (12, 11)})
    axis = ("sagittal", "coronal", "axial").index(plane)
    assert slices.image.shape == (volume.image.shape[axis], 12, 11, 1)
    (top, left), (height, width) = slices.grid.start, slices.grid.size
    inside = slices.label[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(inside, np.moveaxis(volume.label, axis, 0))
    assert slices.label.sum() == volume.label.sum()
    assert abs(top - (12 - height - top)) <= 1 and abs(left - (11 - width - left)) <= 1


@pytest.mark.parametrize("size", [24, 33, (20, 37)])
def test_padded_labels_return_exactly(size):
    volume = make_volume()
    slices = to_slices(volume, **OPTIONS | {"size": size})
    np.testing.assert_array_equal(
        to_native(one_hot(slices.label), slices.grid).argmax(-1), volume.label
    )


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLP", "PIR"])
@pytest.mark.parametrize("size", [24, 12, (20, 9), (9, 20), (7, 7)])
def test_crop_keeps_the_middle_and_makes_the_rest_background(size, axcodes):
    volume = reoriented(make_volume(), axcodes)  # 13 × 17 pixels
    slices = to_slices(volume, **OPTIONS | {"fit": "crop", "size": size})
    height, width = np.broadcast_to(size, 2)
    assert slices.image.shape == (6, height, width, 1) and slices.label.shape == (6, height, width)
    start = [max(0, (n - m + 1) // 2) for n, m in ((13, height), (17, width))]
    seen = np.zeros((13, 17, 6), bool)
    seen[start[0] : start[0] + height, start[1] : start[1] + width] = True
    seen = nib.orientations.apply_orientation(
        seen,
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes)
        ),
    )
    native = to_native(one_hot(slices.label), slices.grid)
    np.testing.assert_array_equal(native.argmax(-1), np.where(seen, volume.label, 0))
    np.testing.assert_array_equal(native[~seen], np.tile([1, 0, 0], (np.sum(~seen), 1)))
    np.testing.assert_array_equal(native.sum(-1), 1)


def test_crop_that_cuts_nothing_is_pad():
    pad, crop = (to_slices(make_volume(), **OPTIONS | {"fit": fit}) for fit in ("pad", "crop"))
    np.testing.assert_array_equal(pad.image, crop.image)
    assert pad.grid == crop.grid


def test_spacing_then_crop():
    """The volumes of Chaitanya et al.: one spacing in the plane, then 192² about the middle."""
    volume = make_volume((216, 256, 3), (1.5625, 1.5625, 10.0))
    volume = volume._replace(label=blobs((216, 256, 3)))
    slices = to_slices(volume, **OPTIONS | {"fit": "crop", "size": 192, "spacing": 1.367})
    assert slices.image.shape == (3, 192, 192, 1)
    assert (slices.grid.start, slices.grid.size) == ((-28, -51), (247, 293))
    # A structure keeps its area in mm².
    area = [np.sum(v == 2) * mm**2 for v, mm in ((slices.label, 1.367), (volume.label, 1.5625))]
    np.testing.assert_allclose(*area, rtol=0.01)
    native = to_native(one_hot(slices.label), slices.grid)
    assert native.shape == (216, 256, 3, 3)
    np.testing.assert_allclose(native.sum(-1), 1, atol=1e-6)
    assert (native[[0, -1]].argmax(-1) == 0).all() and (native[:, [0, -1]].argmax(-1) == 0).all()
    label = native.argmax(-1)
    overlap = 2 * np.sum((label == 2) & (volume.label == 2))
    assert overlap / (np.sum(label == 2) + np.sum(volume.label == 2)) > 0.98


@pytest.mark.parametrize("spacing", [None, 0.6])
@pytest.mark.parametrize("size", [96, 131, (128, 90)])
def test_enlarged_labels_return_almost_exactly(size, spacing):
    volume = make_volume((51, 64, 6))._replace(label=blobs((51, 64, 6)))
    slices = to_slices(volume, **OPTIONS | {"fit": "resize", "size": size, "spacing": spacing})
    label = to_native(one_hot(slices.label), slices.grid).argmax(-1)
    for k in (1, 2):
        overlap = np.sum((label == k) & (volume.label == k))
        assert 2 * overlap / (np.sum(label == k) + np.sum(volume.label == k)) > 0.97


@pytest.mark.parametrize("size", [20, 21, 64, 97])
def test_a_ramp_is_resized_without_shift(size):
    """With half-pixel centres, pixel i of n lies at (i + 1/2) / n of the field of view."""
    n = 40
    ramp = np.broadcast_to(((np.arange(n) + 0.5) / n)[:, None, None, None], (n, n, 3, 1))
    volume = Volume("v", ramp.astype(np.float32), None, np.eye(4))
    slices = to_slices(volume, **OPTIONS | {"size": size, "fit": "resize", "intensity": (0, 1)})
    centres = (np.arange(size) + 0.5) / size
    inner = (centres > 0.5 / n) & (centres < 1 - 0.5 / n)
    np.testing.assert_allclose(slices.image[0, inner, 0, 0], centres[inner], atol=1e-6)
    back = to_native(slices.image, slices.grid)
    np.testing.assert_allclose(back[2:-2, :, :, :], ramp[2:-2], atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 24), (12, 12), (16, 36), (32, 72), (24, 40), (24, 12, 24)])
def test_labels_stay_on_their_image(shape):
    """At half the size each pixel is between two of the label: not always the same of the two."""
    draw, axes, apart, sizes = np.random.default_rng(0), len(shape), [], []
    places = np.moveaxis(np.indices((48,) * axes), 0, -1)
    for _ in range(40):
        radius = np.linalg.norm(places - draw.uniform(20, 28, axes), axis=-1)
        label = np.select([radius < 8, radius < 16], [255, 1]).astype(np.uint8)  # 255: unlabelled
        found = resize_labels(label[None, ..., None], shape)[0, ..., 0]
        assert found.dtype == label.dtype and {*np.unique(found)} == {0, 1, 255}
        middles = [np.add(ndimage.center_of_mass(x > 0), 0.5) for x in (found, label)]
        apart.append(middles[0] * 48 / shape - middles[1])
        sizes.append([(found == k).mean() / (label == k).mean() for k in (1, 255)])
    np.testing.assert_allclose(np.mean(apart, axis=0), 0, atol=0.1)
    np.testing.assert_allclose(np.mean(sizes, axis=0), 1, atol=0.02)


def test_probabilities_still_sum_to_one():
    volume = make_volume((51, 64, 6))
    slices = to_slices(volume, **OPTIONS | {"size": 33, "fit": "resize"})
    probs = np.random.default_rng(0).dirichlet(np.ones(4), (6, 33, 33))
    native = to_native(probs, slices.grid)
    assert native.shape == (51, 64, 6, 4)
    np.testing.assert_allclose(native.sum(-1), 1, atol=1e-6)


def test_without_label():
    assert to_slices(make_volume()._replace(label=None), **OPTIONS).label is None


def test_input_is_left_alone():
    volume = make_volume()
    before = volume.image.copy()
    to_slices(volume, **OPTIONS)
    np.testing.assert_array_equal(volume.image, before)


def intensities(values, intensity) -> np.ndarray:
    image = np.asarray(values, np.float32).reshape(-1, 1, 1, 1)
    options = OPTIONS | {"size": (image.shape[0], 1), "intensity": intensity}
    return to_slices(Volume("v", image, None, np.eye(4)), **options).image.ravel()


def test_intensity_minmax():
    np.testing.assert_allclose(intensities([-3, 1, 5], "minmax"), [0, 0.5, 1])


def test_intensity_percentile():
    values = intensities(np.arange(101), "percentile")
    np.testing.assert_allclose(values[[0, 1, 50, 99, 100]], [0, 0, 0.5, 1, 1], atol=1e-6)
    sparse = np.zeros(1000)
    sparse[7] = 5
    assert intensities(sparse, "percentile")[7] == 1


def test_percentiles_can_be_chosen():
    image = np.arange(101, dtype=np.float32).reshape(-1, 1, 1, 1)
    options = OPTIONS | {"size": (101, 1), "intensity": "percentile", "percentiles": (10, 60)}
    values = to_slices(Volume("v", image, None, np.eye(4)), **options).image.ravel()
    np.testing.assert_allclose(values[[0, 10, 35, 60, 100]], [0, 0, 0.5, 1, 1], atol=1e-6)


def test_intensity_zscore():
    values = intensities(1e6 + np.arange(9), "zscore")
    np.testing.assert_allclose([values.mean(), values.std()], [0, 1], atol=1e-6)


def test_intensity_window():
    np.testing.assert_allclose(intensities([-500, -100, 0, 300, 900], (-100, 300)),
                               [0, 0, 0.25, 1, 1])  # fmt: skip


@pytest.mark.parametrize("intensity", ["minmax", "percentile", "zscore"])
def test_a_constant_image_is_zero(intensity):
    np.testing.assert_array_equal(intensities([0.1] * 7, intensity), np.zeros(7))


def test_channels_are_scaled_apart():
    volume = make_volume(channels=2)
    volume.image[..., 1] *= 1000
    image = to_slices(volume, **OPTIONS).image
    np.testing.assert_allclose(image.max((0, 1, 2)), 1)


@pytest.mark.parametrize(
    ("size", "multiple", "shape"),
    [(16, 4, (16, 20)), ((8, 24), 8, (16, 24)), (24, 4, (24, 24)), ((13, 17), 1, (13, 17))],
)
def test_slices_that_exceed_the_size_are_padded_to_a_multiple(size, multiple, shape):
    volume = make_volume()
    slices = to_slices(volume, **OPTIONS | {"size": size}, multiple=multiple)
    assert slices.image.shape == (6, *shape, 1)
    labels = to_native(one_hot(slices.label), slices.grid).argmax(-1)
    np.testing.assert_array_equal(labels, volume.label)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("spacing", [None, 0.7])
@pytest.mark.parametrize("axcodes", ["RAS", "LIP", "SPL"])
def test_the_shape_of_slices_from_a_header(plane, spacing, axcodes):
    """It is the window in which slices that are padded generously show the volume."""
    straight = make_volume()
    volume = reoriented(straight, axcodes)
    options = {"plane": plane, "spacing": spacing}
    shape = slice_shape("v", volume.image.shape, volume.affine, **options)
    assert shape == slice_shape("v", straight.image.shape, straight.affine, **options)
    assert shape == to_slices(volume, **OPTIONS | options | {"size": 64}).grid.size


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ({"plane": "oblique"}, "data.patches.plane"),
        ({"fit": "stretch"}, "data.patches.fit"),
        ({"intensity": "max"}, "data.patches.intensity"),
        ({"intensity": (3, 3)}, "low < high"),
        ({"intensity": (1, 2, 3)}, "two numbers"),
        ({"spacing": 0.0}, "data.patches.spacing"),
        ({"size": 0}, "data.patches.size"),
        ({"size": ()}, r"no data.patches.size: give --config.data.patches.size='\(H,W\)', in 3-D "),
        ({"size": (8, 8, 8)}, "data.patches.size"),
        (
            {"size": 16},
            "13×17 exceed data.patches.size 16×16; raise --config.data.patches.size or use ",
        ),
        ({"intensity": "percentile", "percentiles": (99, 1)}, "data.patches.percentiles"),
        ({"intensity": "percentile", "percentiles": (0, 101)}, "data.patches.percentiles"),
        ({"intensity": "percentile", "percentiles": (1,)}, "data.patches.percentiles"),
    ],
)
def test_refused(option, expected):
    with pytest.raises(UserError, match=expected) as caught:
        to_slices(make_volume(), **OPTIONS | option)
    assert "\n" not in str(caught.value)


# 3-D images --------------------------------------------------------------------------------

SOLID = OPTIONS | {"dims": 3, "size": (12, 24, 24)}


def back(probs, grid):
    """Class probabilities (d, h, w, k) on the native grid, slice by slice."""
    whole = np.zeros((*grid.shape, probs.shape[-1]), np.float32)
    for place, one in enumerate(along_depth(probs, grid)):
        whole[native_slice(grid, place)] = to_native(one, grid.in_plane)
    return whole


@pytest.mark.parametrize("axcodes", ["RAS", "LIP", "SPL", "PIR"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_volume_is_the_stack_of_its_slices(axcodes, plane):
    volume = reoriented(make_volume(channels=2), axcodes)
    flat = to_slices(volume, **OPTIONS | {"plane": plane})
    solid = to_slices(volume, **SOLID | {"plane": plane, "size": 24})
    depth = len(flat.image)
    first = (24 - depth) // 2
    assert solid.image.shape == (1, 24, 24, 24, 2) and solid.label.shape == (1, 24, 24, 24)
    assert solid.grid.start[0] == first and solid.grid.size[0] == depth
    np.testing.assert_array_equal(solid.image[0, first : first + depth], flat.image)
    np.testing.assert_array_equal(solid.label[0, first : first + depth], flat.label)
    assert not solid.image[0, :first].any() and not solid.image[0, first + depth :].any()
    native = back(one_hot(solid.label[0]), solid.grid)
    np.testing.assert_array_equal(native.argmax(-1), volume.label)
    inside = solid.label[0][solid.inside]
    assert inside.shape == solid.grid.size


def test_the_depth_is_resampled_as_scipy_does_it():
    volume = make_volume((10, 12, 7), (1.0, 1.0, 3.0))
    options = SOLID | {"size": 24, "depth_spacing": 1.1, "spacing": 0.7}
    solid = to_slices(volume, **options)
    shape = (round(21 / 1.1), round(10 / 0.7), round(12 / 0.7))
    assert (
        solid.grid.size
        == shape
        == slice_shape(
            "v",
            (10, 12, 7, 1),
            volume.affine,
            **{k: options[k] for k in ("spacing", "plane", "dims", "depth_spacing")},
        )
    )
    draw = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    padded = np.zeros((24, 24, 24, 3), np.float32)
    padded[tuple(slice(a, a + n) for a, n in zip(solid.grid.start, shape, strict=True))] = draw
    native = back(padded, solid.grid)
    zoom = np.divide((7, 10, 12), shape)
    for k in range(3):
        wanted = ndimage.zoom(draw[..., k], zoom, order=1, mode="nearest", grid_mode=True)
        np.testing.assert_allclose(np.moveaxis(native[..., k], 2, 0), wanted, atol=1e-5)


@pytest.mark.parametrize("spacing", [2.0, 4.5])  # finer and coarser than the slices
def test_a_structure_survives_resampling_and_return(spacing):
    volume = make_volume((20, 22, 16), (1.0, 1.0, 3.0))._replace(label=blobs((20, 22, 16)))
    solid = to_slices(volume, **SOLID | {"size": 32, "depth_spacing": spacing})
    native = back(one_hot(solid.label[0]), solid.grid).argmax(-1)
    for value in (1, 2):
        overlap = 2 * np.sum((native == value) & (volume.label == value))
        assert overlap / np.sum((native == value) + 1 * (volume.label == value)) > 0.85


@pytest.mark.parametrize("size", [(4, 10, 24), (12, 10, 10)])
def test_what_was_cropped_is_background(size):
    volume = make_volume((13, 17, 6))
    solid = to_slices(volume, **SOLID | {"fit": "crop", "size": size})
    assert solid.image.shape == (1, *size, 1)
    native = back(one_hot(solid.label[0]), solid.grid)
    np.testing.assert_allclose(native.sum(-1), 1, atol=1e-6)
    kept = native.argmax(-1) != 0
    np.testing.assert_array_equal(native.argmax(-1)[kept], volume.label[kept])
    gone = volume.label.copy()
    z, x, y = (
        slice(max(0, -a), max(0, -a) + min(n, m))
        for a, n, m in zip(solid.grid.start, solid.grid.size, size, strict=True)
    )
    np.testing.assert_array_equal(native.argmax(-1)[x, y, z], volume.label[x, y, z])
    gone[x, y, z] = 0
    assert not native[gone > 0][:, 1:].any()


def test_multiples_by_axis_and_resizing():
    volume = make_volume((30, 17, 6))
    options = {"size": (4, 16, 16), "multiple": (2, 8, 8)}
    assert to_slices(volume, **SOLID | options).image.shape == (1, 6, 32, 24, 1)
    resized = to_slices(volume, **SOLID | {"fit": "resize", "size": (12, 16, 16)})
    assert resized.image.shape == (1, 12, 16, 16, 1) and resized.grid.start == (0, 0, 0)
    np.testing.assert_allclose(back(np.ones((12, 16, 16, 2), np.float32), resized.grid), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (4, 24, 24)}, r"volumes of 6×13×17 exceed data.patches.size 4×24×24"),
        ({"size": (24, 24)}, "one or three whole numbers"),
        ({"dims": 4}, "must be 2, for slices, or 3, for volumes"),
        ({"depth_spacing": 0.0}, "depth_spacing=0.0: must be millimetres above 0"),
        ({"dims": 2, "size": 24, "depth_spacing": 1.0}, "depth_spacing is for"),
        ({"depth_spacing": 1e-4}, "volumes of 300000×13×17 pixels at data.patches.depth_spacing"),
        # Each side would do, but not all of it.
        ({"spacing": 0.002, "depth_spacing": 0.05}, r"volumes of 600×\d{4}×\d{4} pixels at"),
    ],
)
def test_3d_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        to_slices(make_volume(), **SOLID | options)


def test_slices_that_are_too_many_together_are_refused():
    affine, options = np.diag([1.0, 1, 1, 1]), {"spacing": 0.05, "plane": "axial"}
    assert slice_shape("v", (500, 500, 20), affine, **options) == (10000, 10000)
    with pytest.raises(UserError, match="slices of 10000×10000 pixels at .*; raise it, or repair"):
        slice_shape("v", (500, 500, 22), affine, **options)
    as_it_is = slice_shape("v", (10000, 10000, 22), affine, spacing=None, plane="axial")
    assert as_it_is == (10000, 10000)
