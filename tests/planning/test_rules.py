"""Plans of data sets as people have them, and what they follow of what was given."""

import numpy as np
import pytest

from mijax.configs import folder
from mijax.data.slices import PLANES, slice_shape
from mijax.data.volume import Case, Geometry, Recipe, Volume
from mijax.planning import apply, describe, fingerprint, smaller
from mijax.planning.rules import choices
from mijax.training.config_checks import check_config


def found(
    *, least, median, most, mm, window=None, patients=40, share=0.02, mm_most=None, extent=None
):
    """A fingerprint; ``mm`` are the least and the median, ``extent`` the most."""
    extent = extent or [n * one for n, one in zip(most, mm_most or mm, strict=True)]
    return {
        "cases": 50,
        "labelled": patients,
        "labelled_patients": patients,
        "channels": 1,
        "classes": ["background", "organ"],
        "voxels": {"least": least, "median": median, "most": most},
        "mm": {"least": mm, "median": mm, "most": mm_most or mm},
        "extent": {"most": extent},
        "axes": {"RAS": 50},
        "levels": [],
        "share": {"background": 1 - share, "organ": share},
        "window": window,
    }


HIPPOCAMPUS = found(least=[31, 40, 24], median=[36, 50, 36], most=[43, 59, 47], mm=[1.0] * 3)
ACDC = found(least=[154, 154, 6], median=[216, 256, 9], most=[428, 512, 18], mm=[1.0] * 3)
CT = found(
    least=[512, 512, 200],
    median=[512, 512, 300],
    most=[512, 512, 500],
    mm=[0.7, 0.7, 1.0],
    mm_most=[0.95, 0.95, 2.5],
    window=(-100.0, 220.0),
    share=0.002,
)
HEART = found(
    least=[200, 200, 8], median=[224, 224, 10], most=[256, 256, 14], mm=[1.3, 1.3, 10.0], patients=3
)
SAGITTAL = found(least=[18, 256, 256], median=[20, 320, 320], most=[24, 320, 320], mm=[4, 0.5, 0.5])


def plan(fingerprint, device="cpu", devices=1, **kept):
    kept = {key.replace("__", "."): value for key, value in kept.items()}
    kept = {"data.splits.test": 0} | kept
    made = choices(fingerprint, device=device, devices=devices, kept=kept)
    assert all(choice.reason for choice in made) and not {c.key for c in made} & kept.keys()
    return {choice.key: choice.value for choice in made}, made


@pytest.mark.parametrize("device", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("fingerprint", [HIPPOCAMPUS, ACDC, CT, HEART, SAGITTAL])
@pytest.mark.parametrize(
    "kept", [{}, {"data__patches__dims": 3}, {"steps": 30}, {"model__widths": (2, 3, 4, 5, 6, 7)}]
)
def test_a_plan_is_a_configuration(fingerprint, device, kept):
    """Whatever the data and the device, nothing in it contradicts itself."""
    _, made = plan(fingerprint, device, 8, **kept)
    config = folder.get_config("mean_teacher")
    apply(config, made)
    sections = {"data__patches__dims": config.data.patches, "model__widths": config.model}
    for key, value in kept.items():
        sections.get(key, config)[key.rpartition("__")[2]] = value
    check_config(config)
    assert config.labelled_batch % 8 == 0


def test_the_rest_follows_a_size():
    """The largest slice fits into it, and patches are of its axes."""
    values, _ = plan(CT, data__patches__size=(64, 96))
    assert values["data.patches.spacing"] == 7.6  # mm: 512 voxels of up to 0.95 mm in 64
    assert values["data.patches.fit"] == "pad" and values["data.patches.dims"] == 2
    assert plan(ACDC, data__patches__size=(64, 96))[0]["data.patches.fit"] == "resize"
    values, _ = plan(CT, data__patches__size=(32, 64, 64))
    assert values["data.patches.dims"] == 3 and values["data.patches.fit"] == "whole"
    assert "model.strides" in values


def test_slices_of_small_volumes_on_a_cpu_and_patches_on_a_gpu():
    values, _ = plan(HIPPOCAMPUS)
    assert values["data.patches.dims"] == 2 and values["data.patches.size"] == (48, 64)
    assert values["data.patches.spacing"] is None and values["data.patches.fit"] == "pad"
    values, _ = plan(HIPPOCAMPUS, "gpu")
    assert values["data.patches.dims"] == 3 and values["data.patches.fit"] == "whole"
    size = values["data.patches.size"]
    assert values["model.norm"] == "instance" and "model.strides" not in values
    assert all(abs(a - b) <= 8 for a, b in zip(size, (36, 36, 50), strict=True))


def test_a_ct_is_resampled_windowed_and_cut():
    values, _ = plan(CT, "gpu")
    assert values["data.patches.intensity"] == "window"
    assert values["data.patches.window"] == (-100.0, 220.0)
    assert (values["data.patches.depth_spacing"], values["data.patches.spacing"]) == (1.0, 0.7)
    assert np.prod(values["data.patches.size"]) <= 2**21
    assert values["augmentation.foreground"] == 0.33
    assert values["model.widths"][0] == 32 and max(values["model.widths"]) == 320
    values, _ = plan(CT)  # slices, of which the largest is 512 × 0.95 mm
    assert values["data.patches.dims"] == 2
    assert values["data.patches.spacing"] * 128 >= 512 * 0.95
    assert plan(CT, data__patches__plane="coronal")[0]["data.patches.spacing"]  # not 0.7 × 1.0
    assert max(values["data.patches.size"]) == 128


def test_the_largest_slice_is_that_of_one_case():
    """Not the pixels of the finest times the millimetres of the coarsest: 256 mm, and not 512."""
    mixed = found(
        least=[256, 256, 10],
        median=[512, 512, 12],
        most=[512, 512, 14],
        mm=[0.5, 0.5, 5.0],
        mm_most=[1.0, 1.0, 5.0],
        extent=[256.0, 256.0, 70.0],
    )
    values, _ = plan(mixed)
    assert values["data.patches.spacing"] == 2.0 and values["data.patches.size"] == (128, 128)
    values, _ = plan(mixed, "gpu")
    assert values["data.patches.spacing"] == 0.5 and values["data.patches.size"] == (512, 512)


def of_one(voxels, mm, **options):
    """A fingerprint of volumes of as many voxels each."""
    voxels = list(voxels)
    return found(least=voxels, median=voxels, most=voxels, mm=list(mm), **options)


def test_voxels_that_are_not_square_are_resampled():
    """As slices are; and the shape that is told is that of the patches' voxels."""
    values, made = plan(of_one((170, 256, 256), (1.2, 0.94, 0.94)), "gpu")
    assert (values["data.patches.depth_spacing"], values["data.patches.spacing"]) == (0.94, 1.1)
    (reason,) = (choice.reason for choice in made if choice.key == "data.patches.size")
    assert "256 × 185 × 219 voxels" in reason  # 170 × 1.2 / 1.1 and 256 × 0.94 / 1.1
    values, made = plan(of_one((256, 256, 256), (1.0, 1.05, 1.0)), "gpu")  # nearly so
    assert values["data.patches.spacing"] is None
    (reason,) = (choice.reason for choice in made if choice.key == "data.patches.size")
    assert "256 × 256 × 256 voxels" in reason


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_millimetres_in_float32_make_no_larger_patches(kind):
    mm, thick = float(kind(1.2)), float(kind(0.9))
    values, _ = plan(of_one((128, 128, 128), (mm, mm, thick)), "gpu")
    assert values["data.patches.size"] == (128, 128, 128)
    slices = of_one((128, 128, 9), (mm, mm, 5.0), mm_most=[1.5, 1.5, 5.0], extent=[128 * mm] * 3)
    values, _ = plan(slices, model__widths=(2, 2, 2, 2, 2, 2))  # in multiples of 32
    assert values["data.patches.spacing"] == 1.2 and values["data.patches.size"] == (128, 128)


@pytest.mark.parametrize("size", [None, (64, 64), (48, 96)])
@pytest.mark.parametrize("mm", [1.25, 1.24, 0.7, 1.0])
@pytest.mark.parametrize("voxels", [50, 64, 128, 130])
def test_the_largest_slice_fits_into_the_size(size, mm, voxels):
    """Of two kinds of pixels, of which the median may be rounded down."""
    grids = [((voxels, voxels, 9), (mm, mm, 5.0)), ((50, 50, 9), (1.45, 1.45, 5.0))]
    extent = np.max([np.multiply(*grid) for grid in grids], axis=0).tolist()
    most = [max(voxels, 50)] * 2 + [9]
    two = found(least=[50, 50, 9], median=most, most=most, mm=[mm, mm, 5.0],
                mm_most=[1.45, 1.45, 5.0], extent=extent)  # fmt: skip
    values, _ = plan(two, **({"data__patches__size": size} if size else {}))
    assert values["data.patches.fit"] == "pad"
    options = {"plane": "axial", "spacing": values["data.patches.spacing"]}
    shapes = [slice_shape("a", shape, np.diag([*mm, 1.0]), **options) for shape, mm in grids]
    size = size or values["data.patches.size"]
    assert (np.array(shapes) <= size).all() and max(size) <= 128


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_volumes_of_one_slice_are_cut_to_it(device):
    """Also where a dummy of 1 mm says how thick it is."""
    for axis, plane in enumerate(PLANES):
        values, _ = plan(of_one(np.insert([256, 256], axis, 1).tolist(), (1.0,) * 3), device)
        assert (values["data.patches.plane"], values["data.patches.dims"]) == (plane, 2)
        assert values["data.patches.size"] == ((128, 128) if device == "cpu" else (256, 256))


def test_thick_slices_stay_slices_and_are_cut_across_the_thick_side():
    values, _ = plan(HEART, "gpu")
    assert (values["data.patches.dims"], values["data.patches.plane"]) == (2, "axial")
    values, _ = plan(SAGITTAL, "gpu")
    assert values["data.patches.plane"] == "sagittal"
    values, _ = plan(SAGITTAL, "gpu", data__patches__dims=3)
    assert values["model.strides"][0] == (1, 2, 2) and values["model.kernels"][0] == (1, 3, 3)


def test_unknown_millimetres_are_resized():
    values, _ = plan(ACDC)
    assert values["data.patches.fit"] == "resize" and values["data.patches.size"] == (128, 128)


def test_few_labels_are_augmented_more():
    few, _ = plan(HEART)
    assert few["augmentation.rotation"] == 30.0 and few["data.splits.validation"] == 1
    many, _ = plan(HIPPOCAMPUS)
    assert many["augmentation.rotation"] == 15.0 and many["data.splits.validation"] == 8
    asked, _ = plan(HIPPOCAMPUS, data__splits__labelled=4)
    assert asked["augmentation.rotation"] == 30.0


def test_one_labelled_case():
    _, made = plan(HEART | {"labelled": 1, "labelled_patients": 1})
    (reason,) = (c.reason for c in made if c.key == "data.splits.validation")
    assert "1 labelled patient cannot teach and choose" in reason
    _, made = plan(HEART | {"labelled": 0, "labelled_patients": 0})
    reasons = {c.key: c.reason for c in made}
    assert reasons["data.splits.validation"].startswith("0 labelled patients cannot teach")
    assert reasons["augmentation.rotation"].startswith("few labelled patients (0)")


def test_what_is_given_is_followed():
    values, _ = plan(CT, "gpu", data__patches__spacing=2.0, steps=500)
    assert "data.patches.spacing" not in values and values["warmup_steps"] == 25
    assert values["data.patches.size"][1] < plan(CT, "gpu")[0]["data.patches.size"][1]
    assert plan(CT, evaluate_every=7)[0]["log_every"] == 1
    assert plan(CT, log_every=30, steps=1000)[0]["evaluate_every"] == 90
    assert plan(CT, steps=10)[0]["evaluate_every"] == 1
    deep = {"model__widths": (2, 2, 4, 4, 4, 4)}
    assert plan(HIPPOCAMPUS, **deep)[0]["data.patches.size"] == (64, 64)
    assert plan(HIPPOCAMPUS, "gpu", **deep)[0]["data.patches.size"] == (64, 64, 64)
    # A size that is rounded may have other levels than the patch that it was.
    long = found(
        least=[154, 183, 86], median=[154, 183, 86], most=[154, 183, 86], mm=[2.64, 3.2, 0.82]
    )
    five = {"data__patches__dims": 3, "model__widths": (2, 2, 4, 4, 4)}
    values, _ = plan(long, **five)
    pooled = np.prod([(1, 1, 1), *values.get("model.strides", ((2, 2, 2),) * 4)], axis=0)
    assert not (np.array(values["data.patches.size"]) % pooled).any()
    assert plan(CT, labelled_batch=6)[0]["unlabelled_batch"] == 6
    for data in (HIPPOCAMPUS, CT):
        for key, name in (("window", "window"), ("percentiles", "percentile")):
            values, _ = plan(data, **{f"data__patches__{key}": (0.0, 100.0)})
            assert values["data.patches.intensity"] == name and "data.patches.window" not in values
    few = plan(HIPPOCAMPUS, data__splits__test=20)[0]
    assert few["augmentation.rotation"] == 30.0  # 12 of 40 are left to learn from


def test_slices_of_few_patients_are_cropped_unless_they_are_small():
    values, _ = plan(HEART)
    assert values["data.patches.size"] == (128, 128) and values["augmentation.crop"] == (80, 80)
    assert plan(HEART, model__widths=(2, 3, 4, 5, 6, 7))[0]["augmentation.crop"] == (96, 96)
    small = HEART | {"voxels": {key: [60, 60, 10] for key in ("least", "median", "most")}}
    small["extent"] = {"most": [78.0, 78.0, 100.0]}
    many = HEART | {"labelled_patients": 60}
    for other in (small, many):
        assert "augmentation.crop" not in plan(other)[0]


def test_brightness_is_in_the_units_of_the_scaled_images():
    """Of few patients: a tenth of the range of 0 to 1, or two fifths of a standard deviation."""
    assert plan(HEART)[0]["augmentation.brightness"] == 0.1
    assert plan(HEART, data__patches__intensity="zscore")[0]["augmentation.brightness"] == 0.4


def test_batches_are_halved_until_nothing_is_left():
    _, made = plan(HEART)
    sizes = []
    while made:
        values = {choice.key: choice.value for choice in made}
        sizes.append((values["labelled_batch"], values["unlabelled_batch"]))
        made = smaller(made, devices=1)
    assert sizes[0][0] == sizes[0][1] and sizes[-1] == (2, 2) and len(set(sizes)) == len(sizes)
    assert all(labelled <= unlabelled for labelled, unlabelled in sizes)  # as copy_paste needs it


def test_halved_batches_divide_over_the_devices():
    _, made = plan(HEART, "gpu", devices=6)
    while made:
        batches = [choice.value for choice in made if choice.key.endswith("labelled_batch")]
        assert not any(batch % 6 for batch in batches)
        made = smaller(made, devices=6)
    assert batches == [6, 6]


def test_the_fingerprint_of_volumes():
    draw = np.random.default_rng(0)
    affine = np.diag([-0.5, 2.0, 1.0, 1.0])
    label = np.zeros((4, 5, 6), np.uint8)
    label[1, 2] = 1

    def read(name):
        shape = (4, 5, 6, 1)
        return Volume(
            name, draw.normal(scale=100, size=shape), label if name < "c" else None, affine
        )

    cases = [Case(name, name, name < "c") for name in "abcd"]
    unknown = Recipe(
        None, "", ("background", "organ"), 1, tuple(cases),
        geometry=lambda name: Geometry((4, 5, 6), 1, affine), read=read,
    )  # fmt: skip
    seen = fingerprint(unknown, "ab")
    assert fingerprint(unknown._replace(modalities=("MRI",)), "ab")["window"] is None
    low, high = fingerprint(unknown._replace(modalities=("CT",)), "ab")["window"]  # without any air
    assert low < -100 and high > 100
    assert (seen["cases"], seen["labelled"], seen["labelled_patients"]) == (4, 2, 2)
    assert seen["mm"]["median"] == [0.5, 2.0, 1.0] and seen["voxels"]["most"] == [4, 5, 6]
    assert seen["extent"]["most"] == [2.0, 10.0, 6.0]
    assert seen["axes"] == {"LAS": 4} and seen["window"] is None
    np.testing.assert_allclose(seen["share"]["organ"], 6 / 120)
    half = unknown._replace(  # nobody drew it in one of the two
        read=lambda name: (
            read(name)._replace(undrawn=(1,), label=0 * label) if name == "a" else read(name)
        )
    )
    np.testing.assert_allclose(fingerprint(half, "ab")["share"]["organ"], 6 / 120)
    assert fingerprint(unknown, ())["share"] == {"background": 0, "organ": 0}  # not theirs to know
    again = [*cases, Case("e", "a", False)]
    assert fingerprint(unknown._replace(cases=again), "b")["labelled_patients"] == 1


@pytest.mark.parametrize(("seconds", "shown"), [(0.5, "0.5 s here"), (130.0, "130 s here")])
def test_a_plan_is_described(seconds, shown):
    _, made = plan(HIPPOCAMPUS)
    (line,) = (x for x in describe({"choices": [c._asdict() for c in made]}) if "spacing" in x)
    assert line == "no --config.data.patches.spacing\n    all pixels are of one size"
    _, made = plan(CT)
    lines = list(
        describe(
            {
                "choices": [choice._asdict() for choice in made],
                "cost": {"bytes": 2**30, "seconds": seconds, "compile_seconds": 20.0, "steps": 240},
            }
        )
    )
    assert "--config.data.patches.plane=axial\n    voxels" in lines[0]
    assert "--config.data.patches.window='(-100.0,220.0)'\n    the range of what" in lines[6]
    assert lines[-1].startswith(f"a step takes 1.00 GiB and {shown}")
    assert f"{4 * seconds:.0f} min" in lines[-1]
