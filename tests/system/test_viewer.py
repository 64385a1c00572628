"""The viewer of a report: its files, read by nibabel, and the page in a browser."""

import base64
import gzip
import json
import tomllib
from pathlib import Path

import nibabel as nib
import nibabel.eulerangles
import numpy as np
import pytest
from browser import CHROMIUM, browsing

import mijax.report
from mijax.configs import phantom
from mijax.data import Volume
from mijax.inference.calibration import Estimate
from mijax.inference.scores import METRICS, VOLUME
from mijax.report import make_report
from mijax.report.excerpts import make_excerpt
from mijax.report.joints import Joint
from mijax.report.predictions import Maps, Predictions, packed
from mijax.report.viewer import write_viewer

OBLIQUE = "case_c"
CASES, CLASSES = ("case_a", "case_b", OBLIQUE), ("background", "body", "<b>core")
DSC = {"supervised": (0.6, 0.4, 0.9), "local_mi": (0.7, 0.8, 0.5)}
ESTIMATED = (0.3, 0.7, 0.5)

pytestmark = pytest.mark.xdist_group("browser")


def volume(name, axcodes="LPS"):
    """A scan of 30 x 30 x 8 voxels in RAS+, turned as it says; no two voxels have one value."""
    shape, affine = (30, 30, 8), np.diag([1.5, 1.0, 6.0, 1.0])
    affine[:3, 3] = -20, 10, 30
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    label = np.zeros(shape, np.uint8)
    label[18:27, 20:27, 1:4] = 1
    label[20:24, 22:26, 1:4] = 2
    ras, target = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axcodes))
    turn = nib.orientations.ornt_transform(ras, target)
    image, label = (nib.orientations.apply_orientation(x, turn) for x in (image, label))
    affine = affine @ nib.orientations.inv_ornt_aff(turn, shape)
    if name == OBLIQUE:
        affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.3, 0.4)) @ affine
    return Volume(name, image[..., None], label, affine)


def maps_of(one):
    """The annotation, one voxel off along the first axis; a disagreement of 40 % there."""
    return Maps(packed(np.roll(one.label, 1, 0)), packed(40 * np.uint8(one.label > 0)))


def predictions(**estimates):
    """Of two rows, of which the second has no network; as the first sees every case."""
    maps = {name: maps_of(volume(name)) for name in CASES}
    slices = phantom.get_config("supervised").data.patches
    excerpt = make_excerpt("Worst case", volume(CASES[0]), slices, [None, None], [0.5, 0.5])
    joints = [Joint("True labels", np.full((3, 3, 3, 3), 1 / 9), 0.1)]
    return Predictions(CLASSES, [excerpt], joints, [], [maps, None], estimates, volume)


def read(folder, number):
    """Volumes of a case file, as nibabel sees them."""
    text = (folder / f"case_{number}.js").read_text()
    case = json.loads(text.removeprefix(f"mijaxCase({number}, ").removesuffix(");\n"))
    images = [case["scan"], case["annotation"], *case["rows"][0]]
    assert case["rows"][1] is None
    return case, [nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(x))) for x in images]


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLP"])
def test_files_lie_where_the_volume_does(tmp_path, axcodes):
    one = volume(CASES[0], axcodes)
    maps = [{CASES[0]: maps_of(one)}, None]
    found = predictions()._replace(volume=lambda name: one, maps=maps)
    assert write_viewer(tmp_path / "viewer", found) == ({CASES[0]: 0}, "")
    case, images = read(tmp_path / "viewer", 0)
    scan, annotation, labels, doubt = images
    assert scan.shape < one.label.shape and scan.header.get_data_dtype() == np.uint8
    inside = tuple(
        slice(first, first + n) for first, n in zip(case["start"], scan.shape, strict=True)
    )
    # All that is annotated or predicted is inside, and every voxel has its place and its value.
    predicted = np.roll(one.label, 1, 0)
    for image, values in ((annotation, one.label), (labels, predicted)):
        np.testing.assert_array_equal(image.dataobj, values[inside])
        assert np.count_nonzero(values[inside]) == np.count_nonzero(values)
    assert set(np.unique(doubt.dataobj)) == {0, 40}
    for image in images:
        corner = nib.affines.apply_affine(image.affine, (0, 0, 0))
        np.testing.assert_allclose(corner, nib.affines.apply_affine(one.affine, case["start"]))
        np.testing.assert_allclose(image.affine[:3, :3], one.affine[:3, :3])
    cropped = one.image[inside][..., 0]
    step = np.ptp(cropped) / 255
    middle = np.percentile(cropped, [1, 99])
    np.testing.assert_allclose(
        np.clip(scan.get_fdata(), *middle), np.clip(cropped, *middle), atol=step
    )
    write_viewer(tmp_path / "viewer", found, whole=True)
    case, (scan, *_) = read(tmp_path / "viewer", 0)
    assert case["start"] == [0, 0, 0] and scan.shape == one.label.shape


def test_files_are_of_some_size_and_none_is_left_behind(tmp_path, monkeypatch):
    folder = tmp_path / "viewer"
    assert len(write_viewer(folder, predictions())[0]) == 3
    size = (folder / "case_0.js").stat().st_size
    monkeypatch.setattr("mijax.report.viewer._MOST", 2.5 * size)
    files, note = write_viewer(folder, predictions())
    assert list(files) == list(CASES[:2]) and note.startswith("The viewer has 2 of 3 cases")
    assert len(write_viewer(folder, predictions(), whole=True)[0]) == 3
    assert write_viewer(folder, None) == ({}, "")
    assert not list(folder.iterdir())


def test_what_the_page_takes_along_is_installed():
    """Every file of the report that is no module is package data."""
    report = Path(mijax.report.__file__).parent
    project = tomllib.loads((report.parents[1] / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["mijax.report"]
    installed = {file for pattern in patterns for file in report.glob(pattern)}
    files = {f for f in report.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")}
    assert files == installed


# In a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The open report of two rows, of which the second has no network; and its folder."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    folder, runs = tmp_path_factory.mktemp("page"), []
    for method, means in DSC.items():
        run = folder / method
        run.mkdir()
        (run / "config.json").write_text(phantom.get_config(method).to_json_best_effort())
        (run / "info.json").write_text("{}")
        splits = {"labelled": ["l"], "unlabelled": ["u"], "validation": ["v"], "test": CASES}
        (run / "splits.json").write_text(json.dumps(splits))
        scores = {
            name: {c: {**dict.fromkeys((*METRICS, VOLUME), 1.0), "dsc": dsc} for c in CLASSES[1:]}
            for name, dsc in zip(CASES, means, strict=True)
        }
        entry = {"step": 400, "split": "test", "mean_dsc": 0.5, "cases": scores}
        entry["patients"] = {case: case for case in CASES}
        entry["classes"] = {name: {"dsc": {"mean": 0.5}} for name in CLASSES[1:]}
        entry["nsd_tolerance"] = dict.fromkeys(CLASSES[1:], 2.0)
        (run / "scores.json").write_text(json.dumps({"best": entry, "last": entry}))
        runs.append(run)
    estimates = {
        name: Estimate(x, x - 0.1, x + 0.1) for name, x in zip(CASES, ESTIMATED, strict=True)
    }
    with pytest.MonkeyPatch.context() as patch:
        found = predictions(first=estimates)
        patch.setattr("mijax.report.predictions.predict", lambda rows, **options: found)
        path = make_report(runs, folder / "report", names=["first", "second"])
    with browsing(folder) as page:
        page.open(path)
        page("document.getElementById('cases').scrollIntoView()")
        page.wait("document.getElementById('stage').dataset.open")
        page.path = path
        yield page


def listed(page):
    cells = "[...document.querySelectorAll('#case-body tr')].map((tr) => tr.dataset.case)"
    return page(cells)


def click(page, selector, text):
    page(
        f"[...document.querySelectorAll('{selector}')]"
        f".find((one) => one.textContent === '{text}').click()"
    )


def test_the_worst_case_is_first_and_open(page):
    assert listed(page) == ["case_b", "case_a", "case_c"]
    assert page("document.getElementById('case-name').textContent") == "case_b · first"
    assert page("document.getElementById('case-note').textContent") == ""
    for heading, order in (
        ("Estimated", "acb"), ("Estimated", "bca"), ("Case", "abc"), ("DSC %", "bac"),
    ):  # fmt: skip
        click(page, "#case-head button", heading)
        assert "".join(name[-1] for name in listed(page)) == order


@pytest.mark.parametrize("number", [1, 2], ids=["straight", "oblique"])
def test_volumes_lie_where_they_should_and_a_voxel_has_its_label(page, number):
    one = volume(CASES[number])
    click(page, "#case-body button", one.name)
    page.wait(f"document.getElementById('stage').dataset.open === '{number} 0'")
    # It opens amid what is annotated or predicted.
    labels = np.roll(one.label, 1, 0)
    middle = np.argwhere(one.label | labels).mean(0)
    shown = page("document.getElementById('readout').textContent").split(" · ")[0]
    found = np.fromstring(shown.removeprefix("voxel "), sep=",")
    np.testing.assert_allclose(found, middle, atol=1)
    _, (scan, *_) = read(page.path.parent / "viewer", number)
    np.testing.assert_allclose(page("mijaxViewer.volumes[0].hdr.affine"), scan.affine, atol=1e-4)
    assert page("[...mijaxViewer.volumes[0].hdr.dims]")[1:4] == list(scan.shape)
    names = page("mijaxViewer.volumes.map((one) => one.name)")
    assert names[:2] == ["scan.nii.gz", "prediction.nii.gz"]
    edges = np.argwhere(one.label != labels)
    for place in (*edges[::40], *np.argwhere(one.label == 2)[:2]):
        mm = nib.affines.apply_affine(one.affine, place).tolist()
        page(
            f"mijaxViewer.scene.crosshairPos = mijaxViewer.mm2frac({mm}, 0, true);"
            "mijaxViewer.createOnLocationChange()"
        )
        text = page("document.getElementById('readout').textContent").split(" · ")
        place = tuple(place.tolist())
        assert text[0] == f"voxel {', '.join(map(str, place))}"
        step = np.ptp(one.image) / 255
        assert float(text[1].split()[1]) == pytest.approx(one.image[place][0], abs=8 + step)
        assert text[2] == f"annotation {CLASSES[one.label[place]]}"
        assert text[3] == f"prediction {CLASSES[labels[place]]}"
        assert text[4] == f"disagreement {40 * int(one.label[place] > 0)} %"


@pytest.mark.parametrize(
    ("layer", "colour", "centre"),
    [("annotation", "0 240 255", (22, 24)), ("errors", "255 176 0", (26.5, 23.5))],
    ids=["core", "missed"],
)
def test_right_is_left_and_front_is_up(page, layer, colour, centre):
    """Of the picture itself, of voxels 7 to 30 and 5 to 30 from the left and from the back.

    The core is 20 to 24 and 22 to 26; of the annotation the rightmost column, 26 to 27, is missed.
    """
    click(page, "#case-body button", "case_b")
    page.wait("document.getElementById('stage').dataset.open === '1 0'")
    page(f"document.querySelector('input[value={layer}]').click()")
    page(
        "for (const [id, value] of [['opacity', 100], ['plane', '0']]) {"
        "const one = document.getElementById(id); one.value = value;"
        "one.dispatchEvent(new Event(id === 'plane' ? 'change' : 'input')); }"
        "document.getElementById('outline').checked = false;"
        "document.getElementById('outline').dispatchEvent(new Event('change'))"
    )
    middle = [-20 + 1.5 * 21.5, 10 + 23.5, 30 + 6 * 2]  # of the core in millimetres
    page(
        f"mijaxViewer.scene.crosshairPos = mijaxViewer.mm2frac({middle});"
        "mijaxViewer.opts.crosshairWidth = 0; mijaxViewer.drawScene()"
    )
    width, height, places = page(f"""(() => {{
      const canvas = document.getElementById("canvas"), flat = document.createElement("canvas");
      [flat.width, flat.height] = [canvas.width, canvas.height];
      const context = flat.getContext("2d");
      mijaxViewer.drawScene();
      context.drawImage(canvas, 0, 0);
      const pixels = context.getImageData(0, 0, flat.width, flat.height).data;
      const wanted = "{colour}".split(" ").map(Number), places = [];
      for (let i = 0; i < pixels.length; i += 4) {{
        if (wanted.every((value, k) => Math.abs(pixels[i + k] - value) < 12)) {{
          places.push([(i / 4) % flat.width, Math.floor(i / 4 / flat.width)]);
        }}
      }}
      return [flat.width, flat.height, places];
    }})()""")
    scale = min(width / (1.5 * 23), height / 25)  # pixels a millimetre
    x = width / 2 - scale * 1.5 * (centre[0] - 18.5)  # the patient's right is on the left
    y = height / 2 - scale * (centre[1] - 17.5)
    np.testing.assert_allclose(np.mean(places, 0), [x, y], atol=4)


def test_a_row_of_the_table_opens_its_cases(page):
    click(page, "#scores td button", "second")
    assert page("document.getElementById('case-row').selectedOptions[0].textContent") == "second"
    assert listed(page) == ["case_c", "case_a", "case_b"]
    page.wait("document.getElementById('stage').dataset.open === '1 1'")
    text = page("document.getElementById('readout').textContent")
    assert text.endswith("prediction – · disagreement –")  # it has no network
    click(page, "#scores td button", "first")
    click(page, "#case-body button", "case_c")
    page.wait("document.getElementById('stage').dataset.open === '2 0'")
    assert page("document.getElementById('case-name').textContent") == "case_c · first"
    page("window.dispatchEvent(new Event('beforeprint'))")
    assert page("document.getElementById('printed').src.length") > 5000


def test_nothing_came_from_elsewhere_and_nothing_went_wrong(page):
    folder = page.path.parent.as_uri()
    assert all(url.startswith((folder, "data:image/")) for url in page.requests)
    assert page.errors == []


def test_without_webgl_or_files_the_page_says_so(page):
    note = "document.getElementById('case-note').textContent"
    (page.path.parent / "viewer" / "case_0.js").rename(page.path.parent / "viewer" / "gone")
    click(page, "#case-body button", "case_a")
    assert "viewer/case_0.js cannot be read" in page.wait(note)
    click(page, "#case-body button", "case_c")
    page.wait(f"{note} === ''")
    script = page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="HTMLCanvasElement.prototype.getContext = () => null",
    )
    page.open(page.path)
    page("document.getElementById('cases').scrollIntoView()")
    assert "This browser has no WebGL 2" in page.wait(note)
    assert page("document.getElementById('stage').hidden")
    assert listed(page) == ["case_b", "case_a", "case_c"]
    assert page("document.querySelectorAll('figure img').length") > 2
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_a_negative_number_of_cases_is_one_line(run_here):
    code, _, lines = run_here("mijax.report.__main__", "RUN", "--cases=-3")
    assert code == 2 and lines[-1].startswith("flag --cases=-3: ")
