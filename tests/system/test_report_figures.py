"""Figures of a report: what a radiologist reads off a picture, and that twelve rows fit in."""

import io
import itertools
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from mijax.inference.calibration import Calibration, Estimate
from mijax.inference.calibration import estimates as estimates_of
from mijax.report.contours import contours
from mijax.report.excerpts import Excerpt
from mijax.report.figures import CLASS_COLOURS, STYLE, case_strips, styles, wrapped
from mijax.report.illustrator import Illustrator
from mijax.report.joints import Joint
from mijax.report.pictures import marginals
from mijax.report.predictions import spread
from mijax.report.runs import Row
from mijax.report.statistics import Table
from mijax.report.trust import scatter, worst_first

CLASSES = ("background", "Ventrikel", "Großhirn", "$x$")
LABELS = [
    "Full supervision",
    *(f"Ours (KL), scale=(0.8,1.{i}), weight={i}.0, temperature=0.{i}" for i in range(10, 20)),
    "Partial supervision + MT, pre-trained (Boundary-aware IIC), clusters=20",
]
ROWS = [Row(label, label, "Ours (KL)", ()) for label in LABELS]
BASELINES = [Row(label, label, label, ()) for label in ("Full supervision", "Partial supervision")]


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context(STYLE):
        yield


def excerpt(axis=2, rows=ROWS):
    """A disc in the corner of high h and high w of three slices; nothing in the last slice."""
    h, w = np.ogrid[:40, :30]
    truth = np.zeros((3, 40, 30), np.uint8)
    truth[:2] = ((h - 28) ** 2 + (w - 20) ** 2 < 60) + ((h - 28) ** 2 + (w - 20) ** 2 < 20)
    labels = [np.roll(truth, i % 5, 1) for i in range(len(rows))]
    return Excerpt(
        "Best case", "a", axis, [9, 6, 3], 12, np.random.default_rng(0).random(truth.shape), truth,
        labels, [0.5] * len(rows), (0.75, 1.5),
    )  # fmt: skip


def assert_apart(artists):
    """No two of them overlap."""
    boxes = [artist.get_window_extent() for artist in artists]
    assert not [1 for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize(
    ("axis", "sides"), [(2, "RLAP"), (1, "RLSI"), (0, "APSI")], ids=["axial", "coronal", "sagittal"]
)
def test_a_slice_says_where_it_is(axis, sides):
    figure = contours(excerpt(axis, ROWS[:1]), ROWS[:1], CLASSES)
    assert len(figure.axes) == 6
    for ax, number in zip(figure.axes, [9, 6, 3] * 2, strict=True):
        (_, right), (height, _) = ax.get_xlim(), ax.get_ylim()
        places = {text.get_text(): text.get_position() for text in ax.texts}
        assert places.keys() == {*sides, f"{number} / 12", "5 mm"}
        assert places[sides[0]][0] < 0.1 * right and places[sides[1]][0] > 0.9 * right
        assert places[sides[2]][1] < 0.1 * height and places[sides[3]][1] > 0.9 * height
        (bar,) = ax.lines
        assert np.ptp(bar.get_xdata()) == pytest.approx(5)  # the axes are in millimetres
        # Pixels have their true proportions.
        box = ax.get_window_extent()
        assert box.width / box.height == pytest.approx(right / height, rel=1e-6)


def test_an_estimate_stands_beside_the_true_dsc_and_the_lowest_is_first():
    row = ROWS[0]._replace(runs=(SimpleNamespace(entry={"cases": {}}),))
    first, second = (excerpt(rows=[row])._replace(case=case) for case in "ab")
    estimates = {row.label: {"a": Estimate(0.8, 0.7, 0.9), "b": Estimate(0.75, 0.6, 0.85)}}
    assert worst_first([first, second], estimates) == [second, first]
    assert worst_first([first, second], {}) == [first, second]
    titles = [t.get_text() for t in contours(second, [row], CLASSES, estimates=estimates).texts]
    assert titles[1] == f"{row.label} · DSC 50.0 %, estimated 75.0 % (60 to 85)"
    assert "estimated" not in contours(first, [row], CLASSES).texts[1].get_text()


def test_estimated_against_true(monkeypatch):
    true = {f"case {i}": i / 100 for i in range(50)}
    for module in ("predictions", "trust"):
        monkeypatch.setattr(f"mijax.report.{module}.case_means", lambda row: true)
    some = spread(ROWS[:2], cases=20)
    assert some[0] == "case 0" and {"case 25", "case 49"} <= set(some) and len(some) <= 21
    assert spread(ROWS[:2], cases=0) == spread(ROWS[:2], cases=60) == list(true)
    estimates = {ROWS[1].label: {case: Estimate(0.5, 0.4, 0.7) for case in some}}
    (ax,) = scatter(ROWS[:2], estimates).axes
    (points,) = ax.containers
    x, y = points[0].get_data()
    assert set(x) == {50} and y.tolist() == [100 * true[case] for case in some]
    learned = Calibration(7, 0.0, 1.0, [9.0, 0, 0], np.eye(3).tolist(), 0.01, 0.01)
    _, nearly_one = estimates_of(learned, np.array([0.9]))  # no point is outside its interval
    scatter(ROWS[:1], {ROWS[0].label: {"case 49": nearly_one}})


def test_a_contour_is_where_the_label_is_and_seen_on_any_tissue():
    one = excerpt(rows=ROWS[:1])
    one.truth[:] = one.labels[0][:] = 0
    one.truth[0, 30:36, 20:26] = 1  # high h: the patient's right, on the left; high w: anterior
    one.labels[0][0, 2, 2] = 2
    ax = contours(one, ROWS[:1], CLASSES).axes[3]  # of the row
    drawn = [c for c in ax.collections if c.get_paths() and len(c.get_paths()[0].vertices)]
    colours = [to_hex(c.get_edgecolor()[0]).upper() for c in drawn]
    assert colours == ["#000000", "#FFFFFF", "#000000", CLASS_COLOURS[1]]
    for below, above in zip(drawn[::2], drawn[1::2], strict=True):
        assert below.get_linewidth()[0] > above.get_linewidth()[0] + 1
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    centre = drawn[0].get_paths()[0].get_extents()
    assert centre.x1 < width / 2 and centre.y1 < height / 2
    assert centre.width == pytest.approx(6 * 0.75) and centre.height == pytest.approx(6 * 1.5)


def test_colours_of_classes_are_of_no_row():
    rows = BASELINES + 3 * ROWS  # more than there are colours
    assert not set(CLASS_COLOURS) & {style["color"].upper() for style in styles(rows)}


@pytest.mark.parametrize("count", [1, 4, 12])
def test_contours_of_twelve_rows(count):
    figure = contours(excerpt(rows=ROWS[:count]), ROWS[:count], CLASSES)
    figure.draw_without_rendering()
    assert len(figure.axes) == 3 * (count + 1)
    (legend,) = figure.legends
    assert_apart([*figure.axes, *figure.texts, legend])
    band = min(ax.get_window_extent().y0 for ax in figure.axes) - legend.get_window_extent().y1
    assert 0 <= band < 0.25 * figure.dpi
    assert [text.get_text() for text in legend.get_texts()] == [*CLASSES[1:], "annotation"]
    width, height = figure.get_size_inches()
    assert width < 12 and height < 21


def test_names_of_twelve_rows_lie_apart():
    scores = {case: {"core": {"dsc": 0.5}} for case in "abc"}
    entry = {"classes": {"core": {"dsc": {"mean": 0.5}}}, "cases": scores}
    rows = [row._replace(runs=(type("One", (), {"entry": entry})(),)) for row in ROWS]
    joints = [Joint(row.label, np.full((3, 3, 3, 3), 1 / 9), 0.1) for row in rows]
    table = Table(rows, ("core", "mean"), {}, {}, [], None, False, (), {}, [])
    for figure in (case_strips(table), marginals(joints, "abc")):
        figure.draw_without_rendering()
        names = figure.axes[0].get_yticklabels()
        assert len(names) == 12
        assert_apart(names)


def test_marginals_of_many_classes(png_alone):
    """Of 105 classes names lie apart; the picture goes into the page, as do larger ones."""
    classes = [f"vertebra {i}" for i in range(105)]
    joints = [Joint("A", np.full((3, 3, 105, 105), 105**-2), 0.1)]
    figure, illustrator = marginals(joints, classes), Illustrator()
    illustrator._add("marginals", "", figure)
    for ax in figure.axes:
        assert_apart(ax.get_xticklabels())
        assert not ax.texts
    illustrator._add("joint", "", Figure((0.1, 120)))
    sizes = [Image.open(io.BytesIO(one.webp)).size for one in illustrator.figures]
    assert sizes[0][0] < 5500 and sizes[1][1] == 16_383


def test_a_value_is_not_broken():
    lines = wrapped("Ours (KL), scale=(0.8,1.25), shear=5.0", 22).split("\n")
    assert lines == ["Ours (KL),", "scale=(0.8,1.25),", "shear=5.0"]
