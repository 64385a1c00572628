"""What to trust: signals by another computation, estimates that hold, a table that goes on."""

import csv
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from mijax.configs import common, spleen3d
from mijax.data import Volume, read_splits
from mijax.errors import UserError
from mijax.files import write_json
from mijax.inference import Predictor, evaluate
from mijax.inference.calibration import Calibration, calibrate, estimates
from mijax.inference.scans import predict_files
from mijax.inference.signals import SUMS, disagreement, shape, signals, slice_sums, votes
from mijax.inference.trust import Look, caveats, learn, look, read_trust, trust
from mijax.inference.trust_table import TrustTable
from mijax.inference.voices import _matrix, make_voices
from mijax.runs.folder import is_done
from mijax.runs.info import fingerprint
from mijax.runs.source import open_data

# Signals -----------------------------------------------------------------------------------


def softmax_maps(seed, classes=4):
    draw = np.random.default_rng(seed)
    p, q = np.exp(2 * draw.normal(size=(2, 3, 5, 6, classes))).astype(np.float32)
    p[..., 2] = 0  # a class that is never found
    return (x / x.sum(-1, keepdims=True) for x in (p, q))


def heard_of(probs, copies, others):
    probs, others, *copies = map(jnp.asarray, (probs, others, *copies))
    counts = [votes(probs, copy) for copy in copies]
    return signals(jnp.concatenate([slice_sums(probs, others), *counts], -1).sum(0))


def test_signals_pixel_by_pixel():
    p, q = softmax_maps(0)
    found = heard_of(p, [p, q], (p + q) / 2)
    chosen, q_chosen, q = p.argmax(-1), q.argmax(-1), (p + q) / 2
    for c in (1, 3):
        mask = chosen == c
        other = q_chosen == c
        overlap = 2 * (mask & other).sum() / (mask.sum() + other.sum())
        np.testing.assert_allclose(found["agreement"][c - 1], (1 + overlap) / 2, rtol=1e-5)
        np.testing.assert_allclose(found["confidence"][c - 1], p[mask].max(-1).mean(), rtol=1e-5)
        log = np.log(np.maximum(p[mask], 1e-30))
        np.testing.assert_allclose(found["entropy"][c - 1], -(p[mask] * log).sum(-1).mean(), 1e-5)
        ours, theirs = (np.stack([x[..., c], 1 - x[..., c]]).reshape(2, -1) for x in (p, q))
        joint = ours @ theirs.T / ours.shape[1]
        rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
        information = (joint * np.log(joint / (rows * columns))).sum()
        entropy = -(rows * np.log(rows)).sum()
        np.testing.assert_allclose(found["information"][c - 1], information / entropy, rtol=1e-3)
    assert all(np.isnan(values[1]) for values in found.values())


def test_signals_of_voices_that_all_say_the_same():
    p = jax.nn.one_hot(jnp.arange(2 * 4 * 4).reshape(2, 4, 4) % 3, 3)
    found = heard_of(p, [p], p)
    np.testing.assert_allclose(found["agreement"], 1, rtol=1e-6)
    np.testing.assert_allclose(found["information"], 1, rtol=1e-4)
    assert not disagreement(p, p).any()
    np.testing.assert_allclose(disagreement(p, jnp.roll(p, 1, -1)), 1)


def test_volume_in_millilitres_and_pieces():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[5, 5, 5] = 2  # the first two share a corner
    affine = np.diag([-2.0, 5.0, 10.0, 1.0])
    found = shape(labels, affine, classes=4)
    np.testing.assert_allclose(found["volume_ml"], [0, 0.3, 0])
    assert found["pieces"].tolist() == [0, 2, 0]


# Voices ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heard():
    """``heard(predict)`` of images (2, 8, 8, 1), compiled once; views turn, scale and recolour."""
    augmentation = common.get_config("supervised").augmentation
    augmentation.update({"rotation": 160.0, "scale": (0.5, 2.0), "contrast": 0.5, "noise": 0.2})
    with_voices = make_voices(SimpleNamespace(jit=jax.jit, patch=None), augmentation)
    return lambda predict, images: jax.device_get(with_voices(predict)(None, images))


def of_pixels(weights, images):
    """A network that looks at each pixel alone."""
    return jax.nn.softmax(jnp.concatenate([4 * images, -4 * images], -1), -1)


def of_places(weights, images):
    """One that knows but where it is."""
    rows = jnp.linspace(-1, 1, images.shape[1], dtype=jnp.float32)[None, :, None, None]
    return of_pixels(weights, jnp.broadcast_to(rows, images.shape))


def certain(weights, images):
    """One that says class 1 everywhere."""
    return jax.nn.one_hot(jnp.ones(images.shape[:3], int), 2)


IMAGES = np.random.default_rng(1).normal(size=(2, 8, 8, 1)).astype(np.float32)


def test_doubt_lies_where_the_image_has_it():
    """In a volume of two turned axes."""
    patches = common.get_config("supervised").data.patches
    patches.update({"size": (16, 16), "fit": "pad", "intensity": "minmax", "spacing": None})

    def voices(weights, images):
        sums = np.zeros((len(images), 2, 3), np.float32)
        probs = np.concatenate([1 - images, images], -1)
        return {"probs": probs, "sums": sums, "disagreement": images}

    network = SimpleNamespace(predict=None, slices=patches, stride=1, patch=None, batch=2)
    image = np.random.default_rng(0).random((12, 10, 5)).astype(np.float32)
    volume = Volume("a", image[..., None], None, np.diag([-1.0, 1, -2, 1]))
    (one,) = look(network, None, [volume], lambda predict: voices, disagreement=True)
    wanted = (image - image.min()) / np.ptp(image)
    np.testing.assert_allclose(one.disagreement, wanted, atol=1e-6)


def test_what_moves_with_the_image_is_agreed_on(heard):
    """A network of the place disagrees with itself; of a flat image that of pixels does not."""
    flat = np.ones_like(IMAGES)
    found = heard(of_pixels, 1e3 * flat)
    np.testing.assert_array_equal(found["probs"], of_pixels(None, 1e3 * flat))
    middle = (slice(None), slice(3, 5), slice(3, 5))
    assert found["disagreement"][middle].max() < 1e-3
    assert heard(of_places, IMAGES)["disagreement"].max() > 0.2
    assert heard(of_pixels, IMAGES)["disagreement"].mean() > 0.05


def test_a_copy_that_left_the_frame_agrees(heard):
    """Everywhere certain of class 1, which zeros from outside the frame are not."""
    assert heard(certain, IMAGES)["disagreement"].max() < 1e-5


def test_copies_agree_where_slices_were_cut_away():
    patches = common.get_config("supervised").data.patches
    patches.update({"size": (8, 8), "fit": "crop"})

    def voices(weights, images):
        probs = np.asarray(certain(weights, images))
        sums = np.zeros((len(images), 2, 3), np.float32)
        return {"probs": probs, "sums": sums, "disagreement": 0 * probs[..., :1]}

    network = SimpleNamespace(predict=None, slices=patches, stride=1, patch=None, batch=2)
    volume = Volume("a", np.ones((16, 12, 4, 1), np.float32), None, np.eye(4))
    (one,) = look(network, None, [volume], lambda predict: voices, disagreement=True)
    assert one.labels.any() and not one.labels.all() and not one.disagreement.any()


def test_voices_do_not_depend_on_the_batch(heard):
    """Row by row: the same image twice, and in either row."""
    twice = heard(of_pixels, np.repeat(IMAGES[:1], 2, 0))
    np.testing.assert_allclose(twice["sums"][0], twice["sums"][1], rtol=1e-5)
    turned = heard(of_pixels, IMAGES[::-1])
    np.testing.assert_allclose(turned["sums"][1], twice["sums"][0], rtol=1e-5)


@pytest.mark.parametrize("tilt", [0.0, 15.0])
def test_depth_is_scaled_where_it_was_in_training(tilt):
    augmentation = spleen3d.get_config("supervised").augmentation
    augmentation.update({"scale": (0.5, 2.0), "tilt": tilt})
    matrix = np.asarray(_matrix(0, np.zeros((2, 4, 8, 8, 1)), augmentation))
    depth = 2.0 ** (-1 / 4) if tilt else 1.0
    np.testing.assert_allclose(matrix[:, 0], [[depth, 0, 0, 0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(matrix[:, :, 0], [[depth, 0, 0, 0]] * 2, rtol=1e-6)


# Calibration -------------------------------------------------------------------------------


def scored_cases(draw, cases, noise=0.4):
    """Agreement and DSC of two classes, of a known relation, with an offset of the second."""
    signal = draw.normal(1.5, 0.8, (cases, 2))
    dsc = 0.3 + 0.7 * signal + [0.0, -0.5] + noise * draw.normal(size=(cases, 2))
    return (1 / (1 + np.exp(-x)) for x in (signal, dsc))


def test_the_relation_is_found():
    signal, dsc = scored_cases(np.random.default_rng(0), 400, noise=0.05)
    of_classes, mean = estimates(calibrate(signal, dsc, range(400)), np.array([0.5, 0.9]))
    expected = 1 / (1 + np.exp(-np.array([0.3, 0.3 + 0.7 * np.log(9) - 0.5])))
    np.testing.assert_allclose([e.dsc for e in of_classes], expected, atol=0.01)
    np.testing.assert_allclose(mean.dsc, expected.mean(), atol=0.01)


@pytest.mark.parametrize("cases", [4, 10])
def test_the_interval_holds_as_often_as_it_says(cases):
    draw, inside, widths = np.random.default_rng(cases), [], []
    for _ in range(100):
        signal, dsc = scored_cases(draw, cases + 1, noise=0.7)
        found, mean = estimates(calibrate(signal[1:], dsc[1:], range(cases)), signal[0])
        pairs = [*zip(found, dsc[0], strict=True), (mean, dsc[0].mean())]
        inside += [e.low <= d <= e.high for e, d in pairs]
        widths += [e.high - e.low for e, _ in pairs]
    assert 0.85 < np.mean(inside) < 0.99
    assert (np.mean(widths) > 0.5) == (cases == 4)


def test_too_few_cases_say_so():
    signal, dsc = scored_cases(np.random.default_rng(0), 5)
    dsc[:3] = np.nan
    assert calibrate(signal, dsc, range(5)) is None
    (first, second), mean = estimates(None, np.array([0.7, np.nan]))
    assert first == mean == (0.7, 0, 1) and second is None
    assert estimates(None, np.full(2, np.nan)) == ([None, None], None)


def test_values_that_are_missing_change_nothing():
    signal, dsc = scored_cases(np.random.default_rng(0), 8)
    more = [np.concatenate([x, np.full((3, 2), np.nan)]) for x in (signal, dsc)]
    assert calibrate(*more, range(11)) == calibrate(signal, dsc, range(8))
    assert np.isfinite(calibrate(np.full((4, 2), 0.8), dsc[:4], range(4)).spread_of_mean)


def width(calibration, signal):
    _, mean = estimates(calibration, np.full(2, signal))
    return mean.high - mean.low


def test_a_few_cases_without_an_error_promise_little():
    signal = np.full((3, 2), 0.8)
    assert width(calibrate(signal, signal, range(3)), 0.8) > 0.15
    signal = np.full((200, 2), 0.8)
    assert width(calibrate(signal, signal, range(200)), 0.8) < 0.03


@pytest.mark.parametrize("level", [-9.0, 9.0])  # 0 and 1 but for less than 0.001
def test_an_estimate_lies_in_its_interval(level):
    learned = KNOWN["calibration"]._replace(coefficients=[level, 0.5, 0, 0], spread=0.01)
    for found in (*(of := estimates(learned, np.array([0.9, 0.2])))[0], of[1]):
        assert found.low <= found.dsc <= found.high


def test_a_signal_unlike_those_learned_from_is_less_sure():
    signal, dsc = scored_cases(np.random.default_rng(1), 6)
    calibration = calibrate(signal, dsc, range(6))
    usual = signal.mean()
    assert width(calibration, 0.05) > 1.3 * width(calibration, usual)


def test_scans_of_a_patient_are_left_out_together():
    draw = np.random.default_rng(2)
    signal, dsc = scored_cases(draw, 6)
    twice = [np.repeat(x, 2, 0) for x in (signal, dsc)]
    six, twelve = (calibrate(*twice, names) for names in (np.arange(12) // 2, range(12)))
    once = calibrate(signal, dsc, range(6))
    assert six.patients == 6 and twelve.patients == 12
    np.testing.assert_allclose(six.spread, once.spread, rtol=0.1)
    assert twelve.spread < six.spread and width(twelve, 0.8) < width(six, 0.8)


# Estimates of a case -----------------------------------------------------------------------

CLASSES = ("background", "body", "core")
AFFINE = np.eye(4)
KNOWN = {
    "step": 8,
    "cases": 7,
    "data": "",
    "seen": ["body", "core"],
    "calibration": Calibration(7, 2.0, 0.3, [1.5, 0.5, 0, 0], np.eye(4).tolist(), 0.3, 0.2),
    "annotated": {
        name: {"cases": 9, "shown": shown, "log_volume": [np.log(0.008), 0.1]}
        for name, shown in (("body", 9), ("core", 6))
    },
}


def a_look(agreement=0.9, size=2, value=1):
    """A cube, and ``sums`` of that agreement."""
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[:size, :size, :size] = value
    labels[5:7, 5:7, 5:7] = 2
    n = np.bincount(labels.ravel(), minlength=3).astype(float)
    sums = [n, 0.9 * n, 0.1 * n, n, n, 0.9 * n, n.sum() + 0 * n, n, agreement * n]
    sums = np.stack(sums, 1)
    return Look(labels, sums=sums)


def test_an_ordinary_case():
    found = trust(KNOWN, a_look(), AFFINE, CLASSES)
    assert found.why == {"body": [], "core": []}
    expected = 1 / (1 + np.exp(-(1.5 + 0.5 * (np.log(9) - 2) / 0.3)))
    for estimate in (found.mean, *found.classes.values()):
        np.testing.assert_allclose(estimate.dsc, expected, rtol=1e-6)
        assert estimate.low < expected < estimate.high
    np.testing.assert_allclose(found.signals["body"]["volume_ml"], 0.008)


@pytest.mark.parametrize(
    ("look", "known", "why"),
    [
        (a_look(agreement=0.6), {}, "agrees less than validation cases do"),
        (a_look(size=5), {}, "volume unlike those annotated"),
        (a_look(size=1), {}, "volume unlike those annotated"),
        (a_look(), {"seen": ["core"]}, "no validation case shows it"),
        (a_look(value=0), {}, "not found"),
    ],
)
def test_reasons_not_to_trust(look, known, why):
    found = trust(KNOWN | known, look, AFFINE, CLASSES)
    assert why in found.why["body"]


def test_a_class_that_is_not_found_is_right_where_the_case_has_none():
    found = trust(KNOWN, a_look(value=0), AFFINE, CLASSES)
    assert found.classes["body"] == (1 / 11, 0, 1)  # all nine annotated cases have it
    assert found.mean.low < 0.5 < found.mean.high - 0.4
    empty = Look(np.zeros((4, 4, 4), np.uint8), sums=np.eye(9)[[6] * 3] * 64)
    assert trust(KNOWN, empty, AFFINE, CLASSES).mean == ((1 / 11 + 4 / 11) / 2, 0, 1)
    assert found.why["body"] == ["not found"]


# The table ---------------------------------------------------------------------------------


def rows_of(folder):
    with (folder / "trust.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_worst_is_first(tmp_path):
    table = TrustTable(tmp_path, below=0.6)
    for name, agreement in (("a", 0.9), ("b", 0.6), ("c", 0.95)):
        table.add(name, trust(KNOWN, a_look(agreement), AFFINE, CLASSES))
    rows = rows_of(tmp_path)
    assert [row["case"] for row in rows[::3]] == ["b", "a", "c"]
    assert [row["class"] for row in rows[:3]] == ["mean", "body", "core"]
    assert [row["look"] for row in rows[::3]] == ["yes", "", ""]
    assert rows[0]["why"].startswith("body: agrees less than validation cases do; core: ")
    assert all(float(r["low"]) < float(r["dsc"]) < float(r["high"]) for r in rows)
    assert table.summary("abc").startswith(f"{tmp_path}/trust.csv: 1 of 3 to look at; the worst is")
    assert "trust.csv: 0 of 2 to look at; the worst is a," in table.summary("ac")
    again = TrustTable(tmp_path, below=0.6)
    again.add("d", trust(KNOWN, a_look(), AFFINE, CLASSES))
    assert rows_of(tmp_path)[:3] == rows[:3] and len(rows_of(tmp_path)) == 12


def test_two_processes_that_write_one_table(tmp_path):
    one, other = (TrustTable(tmp_path, below=below) for below in (0.6, 0.99))
    for table, case in ((one, "a"), (other, "b"), (one, "c")):
        table.add(case, trust(KNOWN, a_look(), AFFINE, CLASSES))
    other.drop("b")
    assert {row["case"] for row in rows_of(tmp_path)} == {"a", "c"}
    assert {row["look"] for row in rows_of(tmp_path)} == {"yes"}  # by who wrote last


def test_the_threshold_is_of_all_rows(tmp_path):
    TrustTable(tmp_path, below=0.6).add("a", trust(KNOWN, a_look(), AFFINE, CLASSES))
    before = (tmp_path / "trust.csv").read_text()
    found = TrustTable(tmp_path, below=0.99).summary("a")
    assert "trust.csv: 1 of 1 to look at" in found
    assert [row["look"] for row in rows_of(tmp_path)] == ["yes"] * 3
    TrustTable(tmp_path)
    assert [row["look"] for row in rows_of(tmp_path)] == ["yes"] * 3
    TrustTable(tmp_path, below=0.6)
    assert (tmp_path / "trust.csv").read_text() == before


def test_the_worst_is_first_where_nothing_is_calibrated(tmp_path):
    """All intervals are 0 to 1 then, and the estimates alone tell the cases apart."""
    table = TrustTable(tmp_path, below=0.6)
    for name, agreement in (("a", 0.9), ("b", 0.6), ("c", 0.95)):
        table.add(name, trust(KNOWN | {"calibration": None}, a_look(agreement), AFFINE, CLASSES))
    assert [row["case"] for row in rows_of(tmp_path)[::3]] == ["b", "a", "c"]
    assert "the worst is b, estimated DSC 60 % (0 to 100)" in table.summary("abc")


def test_a_table_that_was_sorted_otherwise_says_the_same(tmp_path):
    table, path = TrustTable(tmp_path, below=0.6), tmp_path / "trust.csv"
    for name, agreement in (("a", 0.9), ("b", 0.6)):
        table.add(name, trust(KNOWN, a_look(agreement, value=0), AFFINE, CLASSES))
    header, *lines = (before := path.read_text()).splitlines(keepends=True)
    path.write_text(header + "".join(sorted(lines, key=lambda line: line.split(",")[1])))
    again = TrustTable(tmp_path, below=0.6)
    assert again.summary("ab") == table.summary("ab")
    again.add("c", trust(KNOWN, a_look(), AFFINE, CLASSES))
    again.drop("c")
    assert path.read_text() == before
    path.write_text(header + "".join(lines[1:]))  # without a mean
    with pytest.raises(UserError, match="no row of the mean of b"):
        TrustTable(tmp_path)


@pytest.mark.parametrize("text", ["mine", "case,low\na,b\n", "case,class,low\na,mean,0.5\n"])
def test_another_table_stays(tmp_path, text):
    (tmp_path / "trust.csv").write_text(text)
    if text == "mine":  # a header of a file without rows
        assert "mine" not in TrustTable(tmp_path, below=0.5)
        return
    with pytest.raises(UserError, match="--overwrite replaces it"):
        TrustTable(tmp_path, below=0.5)
    assert (tmp_path / "trust.csv").read_text() == text
    TrustTable(tmp_path, below=0.5, fresh=True)


# A run -------------------------------------------------------------------------------------


@pytest.fixture
def run(copied):
    """A run that knows what to trust."""
    run = copied("local_mi")
    known = {**KNOWN, "calibration": KNOWN["calibration"]._asdict(), "step": Predictor(run).step}
    write_json(run.folder / "trust.json", known)
    return run


@pytest.fixture
def scans(run, tmp_path):
    source, folder = open_data(run.config), tmp_path / "scans"
    folder.mkdir()
    for case in source.cases[:3]:  # named so that none is a channel of a case
        volume = source.volume(case.name)
        nib.save(nib.Nifti1Image(volume.image[..., 0], volume.affine), folder / f"{case.name}x.nii")
    return folder


def test_labels_are_those_without_voices(run):
    source, predictor = open_data(run.config), Predictor(run)
    volumes = [source.volume(case.name) for case in source.cases[:3]]
    options = {"probabilities": True, "largest_component": True}
    found = predictor.look(volumes, disagreement=True, **options)
    for one, (labels, probs) in zip(found, predictor.segment(volumes, **options), strict=True):
        np.testing.assert_array_equal(one.labels, labels)
        np.testing.assert_array_equal(one.probs, probs)
        assert one.disagreement.shape == labels.shape and one.disagreement.max() > 0.01


def test_predict_goes_on_and_the_table_has_all_cases(run, scans, tmp_path, monkeypatch, told):
    out, add = tmp_path / "out", TrustTable.add

    def killed(table, case, found):
        if len(list(out.glob("*.nii.gz"))) > 1:
            raise KeyboardInterrupt
        add(table, case, found)

    with monkeypatch.context() as patch:
        patch.setattr(TrustTable, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_files(run, scans, out, checkpoint="best", trust=True)
    before = rows_of(out)
    assert len(before) == 3 and len(list(out.glob("*.nii.gz"))) == 2
    done, failed = predict_files(run, scans, out, checkpoint="best", trust=True)
    assert (len(done), failed) == (3, [])
    rows = rows_of(out)
    assert len(rows) == 9 and [r for r in rows if r["case"] == before[0]["case"]] == before
    assert [float(r["low"]) for r in rows[::3]] == sorted(float(r["low"]) for r in rows[::3])
    assert "of 3 to look at; the worst is" in told[-1]
    monkeypatch.setattr("mijax.inference.scans.Predictor", pytest.fail)
    assert predict_files(run, scans, out, checkpoint="best", trust=True)[1] == []
    assert rows_of(out) == rows
    # From Python, the same.
    monkeypatch.undo()
    image = nib.load(scans / f"{rows[0]['case']}.nii")
    found = Predictor(run).trust(image.get_fdata(), image.affine)
    np.testing.assert_allclose(float(rows[0]["dsc"]), found.mean.dsc, atol=1e-3)
    np.testing.assert_allclose(float(rows[1]["low"]), found.classes["body"].low, atol=1e-3)


@pytest.mark.parametrize("again", [True, False])
def test_rows_of_label_maps_that_are_replaced_go_with_them(
    run, scans, tmp_path, again, monkeypatch
):
    """The others stay, and a kill leaves no row of another label map."""
    out, (path, *others) = tmp_path / "out", sorted(scans.iterdir())
    options = {"checkpoint": "best", "trust": True}
    predict_files(run, scans, out, **options)
    before = rows_of(out)
    options |= {"trust": again, "overwrite": True}
    with monkeypatch.context() as patch:
        patch.setattr("mijax.inference.scans.write_image", interrupt)
        with pytest.raises(KeyboardInterrupt):
            predict_files(run, path, out, **options)
    kept = [row for row in before if row["case"] != path.stem]
    assert rows_of(out) == kept and len(kept) == 3 * len(others)
    predict_files(run, path, out, **options)
    assert rows_of(out) == (before if again else kept)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_what_is_added_later_is_of_the_label_map_that_is_there(run, scans, tmp_path, told):
    path, out = sorted(scans.iterdir())[0], tmp_path / "out"
    predict_files(run, path, out, checkpoint="best", mirror=True)
    label = out / f"{path.stem}.nii.gz"
    before = label.read_bytes()
    more = {"checkpoint": "best", "trust": True, "probabilities": True}
    assert predict_files(run, path, out, **more) == ([], [path.stem])
    assert f"{label} is of another run or flags, or edited; --overwrite replaces it" in told[-1]
    assert [file.name for file in out.iterdir()] == [label.name] and label.read_bytes() == before
    assert predict_files(run, path, out, mirror=True, **more) == ([path.stem], [])
    assert rows_of(out)[0]["case"] == path.stem and label.read_bytes() == before


def test_a_map_of_disagreement_lies_on_the_scan(run, scans, tmp_path):
    (run.folder / "trust.json").unlink()  # nothing learned is needed
    path = sorted(scans.iterdir())[0]
    predict_files(run, path, tmp_path / "out", checkpoint="best", disagreement=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"{path.stem}.nii.gz",
        f"{path.stem}_disagreement.nii.gz",
    }
    found = nib.load(tmp_path / "out" / f"{path.stem}_disagreement.nii.gz")
    np.testing.assert_array_equal(found.affine, nib.load(path).affine)
    values = found.get_fdata()
    assert values.shape == nib.load(path).shape and 0 <= values.min() < values.max() <= 1


def learnt_as_json(run):
    """A whole trust.json."""
    calibration = KNOWN["calibration"]._asdict()
    annotated = {name: {"cases": 1, "shown": 1, "log_volume": None} for name in ("body", "core")}
    return {
        "step": 8, "cases": 5, "data": "", "seen": ["body", "core"], "calibration": calibration,
        "annotated": annotated,
    }  # fmt: skip


def test_a_run_that_has_not_learned_it(run, scans, tmp_path, told):
    for text, reason in ((None, "has no trust.json; python"), ("{}", "is damaged"), ("{", "read")):
        (run.folder / "trust.json").unlink(missing_ok=True)
        if text:
            (run.folder / "trust.json").write_text(text)
        with pytest.raises(UserError, match=reason):
            read_trust(run)
    damages = (
        {"coefficients": [float("nan")] * 4},
        {"covariance": [[1.0]]},
        {"mean": "a"},
        {"patients": 0},
        {"annotated": {"tumour": {}}},
    )
    for damage in damages:
        whole = learnt_as_json(run)
        part = whole if "annotated" in damage else whole["calibration"]
        part.update(damage)
        (run.folder / "trust.json").write_text(json.dumps(whole))
        with pytest.raises(UserError, match="is damaged"):
            read_trust(run)
    path = sorted(scans.iterdir())[0]
    done, _ = predict_files(run, path, tmp_path / "out", checkpoint="best", trust=True)
    assert len(done) == 1 and not (tmp_path / "out" / "trust.csv").exists()
    assert told[0].startswith("no trust.csv: ")


def test_evaluation_learns_it_where_it_is_missing(run, monkeypatch):
    path = run.folder / "trust.json"
    path.unlink()
    (run.folder / "scores.json").unlink(missing_ok=True)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Predictor, "look", interrupt)
        evaluate(run)
    assert not is_done(run.folder)  # the same command has to learn it
    evaluate(run)
    assert is_done(run.folder)
    known, text = read_trust(run), path.read_text()
    marked = json.loads(text) | {"cases": 9}
    write_json(path, marked)
    evaluate(run)
    assert read_trust(run)["cases"] == 9  # as it was
    write_json(path, marked | {"data": "the labels have been corrected since"})
    evaluate(run)
    assert path.read_text() == text
    assert known["calibration"] is None and known["cases"] == 2  # of which three are needed
    source, splits = open_data(run.config), read_splits(run.folder / "splits.json")
    assert known["data"] == fingerprint([source.volume(name) for name in splits.validation])
    assert known["step"] == json.loads((run.folder / "scores.json").read_text())["best"]["step"]
    assert known["annotated"]["body"]["cases"] == 4  # 2 labelled, 2 of the validation
    line = next(caveats(known, known["step"]))
    assert "not calibrated" in line and "3 validation patients in whom" in line


def test_what_is_learned_of_a_case_is_its_agreement_and_its_dsc():
    """Of six cases of five patients: 10 pixels found, ``both`` of them by a copy that finds 10."""
    both, rows = np.array([9, 8, 7, 6, 5, 4]), np.arange(10)
    looks, volumes = [], []
    for i, n in enumerate(both):
        sums = np.ones((2, len(SUMS) + 2))
        sums[:, SUMS.index("predicted")] = [90, 10]
        sums[:, SUMS.index("pixels")] = 100
        sums[1, -2:] = 10, n
        label = np.zeros((10, 10, 1), np.uint8)
        label[0] = 1
        found = np.zeros_like(label)
        found[0, rows >= i] = 1  # 10 − i of the 10, and nothing else
        looks.append(Look(found, sums=sums))
        volumes.append(Volume(f"case{i}", np.zeros((10, 10, 1, 1)), label, np.eye(4)))
    patients = {f"case{i}": f"patient{min(i, 4)}" for i in range(6)}
    known = learn(looks, volumes, [], ("background", "body"), patients)
    dsc = np.array([2 * (10 - i) / (10 - i + 10) for i in range(6)])
    wanted = calibrate(both[:, None] / 10, dsc[:, None], [*patients.values()])
    assert known["calibration"] == wanted._asdict() and wanted.patients == 5
    assert known["cases"] == 6 and known["annotated"]["body"]["cases"] == 6
    assert json.loads(json.dumps(known, allow_nan=False)) == known
    (line,) = caveats({**known, "step": 4, "calibration": KNOWN["calibration"]}, 5)
    assert line == "learned with the checkpoint of step 4, and this is that of 5"
