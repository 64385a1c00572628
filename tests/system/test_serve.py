"""A run over HTTP: real requests on a socket, the voxels of the command, and hostile requests."""

import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from types import SimpleNamespace

import httpx
import jax
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import highdicom, oblique, positions, pydicom, write_series
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mijax import serve
from mijax.data.scans import read_scan
from mijax.errors import UserError
from mijax.files import write_json
from mijax.inference import Predictor
from mijax.inference.scans import predict_files
from mijax.runs.folder import open_run
from mijax.serving import guard
from mijax.serving import server as serving_server
from mijax.serving.app import Settings, make_app
from mijax.serving.archive import TooLarge
from mijax.serving.model import Model
from mijax.serving.reader import Reader
from mijax.serving.receive import UploadLimits
from mijax.serving.scans import open_scan
from mijax.serving.server import Server, listen
from mijax.serving.sessions import Bounds, Full, Sessions, Unknown
from mijax.serving.uploads import store

OBLIQUE = np.array([[0.9, -0.3, 0.1, 4], [0.2, 1.1, 0, -7], [0, 0.1, 3, 2], [0, 0, 0, 1]])
CODES = {name: {"type": ["1", "99TEST", name]} for name in ("body", "core")}
INFER = "/infer/phantom"
TIMEOUT = 60.0

# Of one scan sform and qform differ.
pytestmark = pytest.mark.filterwarnings("ignore::mijax.errors.Notice")


@pytest.fixture(scope="module")
def run(predicting):
    """With what it may have learned of trust."""
    folder = predicting()
    annotated = {"cases": 4, "shown": 4, "log_volume": [0.2, 0.1]}
    known = {"data": "", "step": 12, "cases": 2, "seen": ["body", "core"], "calibration": None}
    write_json(folder / "trust.json", known | {"annotated": dict.fromkeys(CODES, annotated)})
    return open_run(folder)


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    codes = tmp_path_factory.mktemp("codes") / "codes.json"
    write_json(codes, CODES)
    predictor = Predictor(run, checkpoint="last", devices=jax.devices()[:1])  # as the command
    return Model(predictor, name="phantom", codes=codes)


@pytest.fixture(scope="module")
def serving(model, tmp_path_factory):
    """``with serving(settings) as client``: a server, and its folder as ``client.root``."""

    @contextlib.contextmanager
    def serve(settings=None, *, model=model):
        settings = settings or Settings()
        root = tmp_path_factory.mktemp("root")
        with listen("127.0.0.1", 0) as listener:
            server = Server(make_app(model, root, settings))
            thread = threading.Thread(target=server.run, args=([listener],))
            thread.start()
            host, port = listener.getsockname()
            try:
                with httpx.Client(base_url=f"http://{host}:{port}", timeout=TIMEOUT) as client:
                    client.root, client.address, client.server = root, (host, port), server
                    yield client
            finally:
                server.should_exit = True
                thread.join()

    return serve


@pytest.fixture(scope="module")
def client(serving):
    """A server that takes little."""
    limits = UploadLimits(bytes=2**18, voxels=2**20)
    with serving(Settings(limits, Bounds(2, 2**20, 60.0))) as client:
        yield client


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(32, 32, 4)).astype(np.float32)


def nifti(image, affine=OBLIQUE):
    return nib.Nifti1Image(image, affine).to_bytes()


@pytest.fixture(scope="module")
def scans(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    made = nib.Nifti1Image(image, OBLIQUE)
    made.set_qform(np.diag([1.0, 2, 3, 1]), 1)
    nib.save(made, folder / "packed.nii.gz")
    (folder / "plain.nii").write_bytes(nifti(image))
    other = sitk.GetImageFromArray(image.T.copy())
    other.SetSpacing((0.8, 0.9, 3.1))
    other.SetDirection((0, 1, 0, 0, 0, -1, -1, 0, 0))
    for name in ("meta.mha", "nearly.nrrd"):
        sitk.WriteImage(other, str(folder / name), useCompression=True)
    return folder


@pytest.fixture(scope="module")
def series(image, tmp_path_factory):
    """A folder of a DICOM series, and its zip file."""
    folder = tmp_path_factory.mktemp("series")
    stored = np.round(100 * image.T).astype(np.int16)
    places = positions(4, orientation=oblique(), distance=4)
    options = {"bits": 16, "slope": 0.01, "intercept": 0.0, "spacing": (1.0, 1.0)}
    write_series(folder / "a", stored, orientation=oblique(), places=places, **options)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
        archive.writestr("__MACOSX/._1", b"\0")
        archive.writestr("a/.DS_Store", b"\0")
    return folder / "a", content.getvalue()


def parts(response):
    """The fields of an answer, by name, as bytes; that of the image under ``image``."""
    header = f"content-type: {response.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(header + response.content)
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.iter_parts()
    }


def label_map(content):
    return nib.Nifti1Image.from_bytes(gzip.decompress(content))


def post(client, content, name="scan.nii", *, params=None, **query):
    data = {} if params is None else {"params": params}
    return client.post(INFER, files={"file": (name, content)}, data=data, params=query)


def post_session(client, image, **query):
    files = {"files": ("a.nii", nifti(image))}
    return client.put("/session/", files=files, params=query).json()["session_id"]


# What a viewer asks ----------------------------------------------------------------------


def test_what_there_is(client):
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}
    info = client.get("/info/").json()
    assert info == client.get("/info").json()
    assert info["labels"] == ["body", "core"] and not info.get("config")  # an old server has that
    assert info["models"]["phantom"] | {"description": ""} == {
        "type": "segmentation",
        "labels": {"body": 1, "core": 2},
        "dimension": 3,
        "description": "",
        "config": {"largest_component": False, "mirror": False, "trust": True},
    }
    for key in ("trainers", "strategies", "scoring", "train_stats"):
        assert info[key] == {}
    assert client.get("/auth/").json() == {"enabled": False}


@pytest.mark.parametrize("name", ["packed.nii.gz", "plain.nii", "meta.mha", "nearly.nrrd"])
def test_the_label_map_is_that_of_the_command(client, run, scans, tmp_path, name):
    predict_files(run, scans / name, tmp_path / "out", checkpoint="last")
    (path,) = (tmp_path / "out").iterdir()
    answer = post(client, (scans / name).read_bytes(), name, output="image")
    assert answer.headers["content-disposition"] == 'attachment; filename="labels.nii.gz"'
    found = label_map(answer.content)
    values = np.asarray(found.dataobj)
    if path.name.endswith(".nii.gz"):
        expected = nib.load(path)
        assert found.header == expected.header
        np.testing.assert_array_equal(values, np.asarray(expected.dataobj))
    else:
        expected = sitk.ReadImage(str(path))
        np.testing.assert_array_equal(values.T, sitk.GetArrayFromImage(expected))
        (tmp_path / "found.nii.gz").write_bytes(answer.content)
        here = sitk.ReadImage(str(tmp_path / "found.nii.gz"))
        np.testing.assert_allclose(here.GetDirection(), expected.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(here.GetSpacing(), expected.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(here.GetOrigin(), expected.GetOrigin(), atol=1e-5)
    assert len(np.unique(values)) > 1


def test_a_session_and_all_that_is_said_of_it(client, model, image, scans):
    content = (scans / "packed.nii.gz").read_bytes()
    made = client.put("/session/", files={"files": ("x.nii.gz", content)}, data={"client_id": "a"})
    session = made.json()["session_id"]
    info = client.get(f"/session/{session}").json()
    assert info == made.json()["session_info"]
    assert (info["name"], info["meta"]) == (session, {"bytes": len(content)})
    params = {"largest_component": True, "client_id": "a", "result_extension": ".nrrd", "what": 1}
    query = {"image": "scan", "session_id": session}
    answer = client.post(INFER, data={"params": json.dumps(params)}, params=query)
    fields = parts(answer)
    result = json.loads(fields["params"])
    assert result["label_names"] == {"body": 1, "core": 2}
    assert set(result["latencies"]) == {"pre", "infer", "write", "total"}
    assert (result["step"], result["ignored"]) == (12, ["what"])
    sheared, forms = result["notices"]
    assert sheared.startswith("image.nii.gz: axes sheared by ")
    assert forms.startswith("image.nii.gz: sform and qform differ by up to ")
    expected = model.predictor(image, OBLIQUE, largest_component=True)
    np.testing.assert_array_equal(np.asarray(label_map(fields["image"]).dataobj), expected)
    trust = model.predictor.trust(image, OBLIQUE)
    assert result["trust"]["mean"]["dsc"] == round(trust.mean.dsc, 4)
    assert {name: found["why"] for name, found in result["trust"]["classes"].items()} == trust.why
    assert result["trust"]["caveats"][0].startswith("estimates are not calibrated")
    # Again without an estimate, as JSON alone.
    answer = client.post(
        INFER, data={"params": '{"trust": false}'}, params=query | {"output": "json"}
    )
    assert answer.json().keys() == result.keys() - {"trust"}
    assert client.delete(f"/session/{session}").json()["name"] == session
    assert client.get(f"/session/{session}").status_code == 404
    assert list(client.root.iterdir()) == []


def test_images_by_a_name_as_3d_slicer_sends_them(client, model, image):
    """Two clients give one name to two images; a name is no path."""
    images, name = {"a": image, "b": image[::-1]}, "../../etc/MRHead"

    def ask(method, path, user, **options):
        data = {"params": json.dumps({"client_id": user, "trust": False})}
        query = {"image": name}
        return client.request(method, path, params=query, data=data, **options)

    def send(path, user, values):
        files = {"file": ("a.nii", nifti(values))}
        assert ask("PUT", path, user, files=files).json() == {"image": name}

    send("/datastore/", "a", image[::-1])
    send("/datastore/", "a", image)  # in its place
    send("/datastore/image", "b", image[::-1])
    for user, values in images.items():
        found = label_map(parts(ask("POST", INFER, user))["image"])
        expected = model.predictor(values, OBLIQUE)
        np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    is_unknown = ask("POST", INFER, "c")
    assert is_unknown.status_code == 404 and "from this client" in is_unknown.json()["detail"]
    others = [post_session(client, image) for _ in range(2)]  # the server keeps no more
    for user in images:
        assert ask("POST", INFER, user).status_code == 404
    for session in others:
        client.delete(f"/session/{session}")


def test_one_file_a_channel(image, tmp_path):
    slices = {"size": 32, "spacing": None, "plane": "axial", "fit": "pad", "dims": 2}

    def stored(channels, values):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        sent = [UploadFile(io.BytesIO(nifti(v)), filename="../same.nii") for v in values]
        return store(sent, folder, channels=channels, most_bytes=2**20)

    scan = open_scan(stored(2, [image, -image]), slices, 2, 2**14)
    volume = read_scan(scan, channels=2)
    np.testing.assert_array_equal(volume.image, np.stack([image, -image], -1))
    with pytest.raises(TooLarge, match="8,192 voxels"):
        open_scan(stored(2, [image, -image]), slices, 2, 2**12)
    for count, channels in ((2, 1), (2, 3)):
        with pytest.raises(UserError, match=f"{count} files; send one, a DICOM series as a zip"):
            stored(channels, [image] * count)


def test_a_zip_of_a_dicom_series(client, run, series, tmp_path):
    folder, content = series
    predict_files(run, folder, tmp_path / "out", checkpoint="last")
    expected = nib.load(tmp_path / "out" / "1.2.3.5.nii.gz")
    session = client.put("/session/", files={"files": ("a.zip", content)}).json()["session_id"]
    query = {"session_id": session}
    found = label_map(client.post(INFER, params=query | {"output": "image"}).content)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_array_equal(found.affine, expected.affine)
    answer = client.post(INFER, params=query | {"output": "dicom_seg"})
    assert answer.headers["content-type"] == "application/dicom"
    seg = highdicom.seg.segread(io.BytesIO(answer.content))
    grid = np.diag([-1.0, -1, 1, 1]) @ expected.affine
    place = highdicom.Volume(np.zeros(found.shape, np.uint8), grid, coordinate_system="PATIENT")
    values = seg.get_volume(combine_segments=True).match_geometry(place).array
    np.testing.assert_array_equal(values, np.asarray(expected.dataobj))
    client.delete(f"/session/{session}")


def test_a_zip_of_several_series_is_told_of(client, series, image, tmp_path):
    folder, _ = series
    write_series(tmp_path / "b", np.zeros((2, 8, 8), np.uint16), uid="1.2.3.6")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in [*folder.iterdir(), *(tmp_path / "b").iterdir()]:
            archive.write(path, f"{path.parent.name}/{path.name}")
    answer = client.post(INFER, files={"file": ("a.zip", content)}, params={"output": "json"})
    assert answer.json()["notices"] == [
        "the largest series, 1.2.3.5 'thorax' (4 slices of 32×32), is taken; "
        "not taken: 1.2.3.6 'thorax' (2 slices of 8×8)"
    ]


# What is refused -------------------------------------------------------------------------


def zipped(*names, content=b"x", method=zipfile.ZIP_STORED, link=False):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            info.external_attr = (0o120777 if link else 0o100644) << 16
            archive.writestr(info, content)
    return made.getvalue()


def bomb(image, more=2**27):
    """A NIfTI file that unpacks to much more than its header announces."""
    return gzip.compress(nifti(image) + bytes(more), 1)


def header(shape, **fields):
    """The header of a NIfTI file, and nothing after it."""
    made = nib.Nifti2Header()
    made.set_data_dtype(np.uint8)
    made.set_data_shape(shape)
    made.set_sform(np.eye(4), 1)
    for name, value in fields.items():
        made[name] = value
    return made.binaryblock + bytes(4)


def deflated(folder):
    """A DICOM file of a few bytes that unpacks to many."""
    made = pydicom.dcmread(next(folder.iterdir()))
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    made.PixelData = bytes(2**24)
    content = io.BytesIO()
    made.save_as(content)
    return content.getvalue()


META = b"NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = "
NRRD = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: "
BAD = {
    "text": (b"hello", "a.nii.gz", 400, "image.nii.gz: truncated or not NIfTI"),
    "no ending": (b"hello", "a", 400, "not one of .nii.gz, .nii, .mha, .nrrd by its name"),
    "path as name": (b"hello", "../../etc/passwd", 400, "not one of"),
    "path with an ending": (b"hello", "../../x.nii", 400, "image.nii: truncated or not NIfTI"),
    "path in a header": (META + b"/etc/passwd\n", "a.mha", 400, "is not a file beside it"),
    "climbing header": (META + b"../a.raw\n", "a.mha", 400, "is not a file beside it"),
    "path in a NRRD": (NRRD + b"/etc/passwd\n\n", "a.nrrd", 400, "is not a file beside it"),
    "a header alone": (META + b"a.raw\n", "a.mhd", 400, "not one of"),
    "huge": (header((2000, 2000, 900)), "a.nii", 413, "3,600,000,000 voxels, 2000×2000×900"),
    "huge in memory": (header((1, 1, 9000)), "a.nii", 413, "9,216,000 voxels as the network"),
    "huge slices": (header((9000, 100, 1)), "a.nii", 413, "the run learned from 32×32"),
    "far voxels": (header((9, 9, 9), vox_offset=2**40), "a.nii", 400, "before the voxels"),
    "zip that climbs": (zipped("../../x"), "a.zip", 400, "file 1 has a name that leads"),
    "zip with a root": (zipped("a", "/etc/x"), "a.zip", 400, "zip: file 2 has a name that leads"),
    "zip with a drive": (zipped("C:\\x"), "a.zip", 400, "leads out of its folder"),
    "zip with a link": (zipped("x", content=b"/etc/passwd", link=True), "a", 400, "1 is a link"),
    "zip bomb": (zipped("x", content=bytes(2**25), method=8), "a", 413, "larger than the server"),
    "zip by bzip2": (zipped("x", method=zipfile.ZIP_BZIP2), "a", 400, "another method"),
    "zip of no scan": (zipped("x", "y"), "a.zip", 400, "zip: no DICOM file in it"),
    "damaged zip": (zipped("x")[:-9], "a.zip", 400, "zip: damaged"),
    "empty zip": (zipped(), "a.zip", 400, "not one of"),
}  # fmt: skip


def is_refused(client, answer, status, detail):
    """One line that says what is wrong, and nothing of the machine; and nothing is left of it."""
    assert answer.status_code == status, answer.text
    (found,) = answer.json().values()
    assert answer.json().keys() == {"detail"} and detail in found
    assert "\n" not in found and "Traceback" not in found
    assert str(client.root) not in found and str(client.root.parent) not in found
    assert list(client.root.iterdir()) == []
    return found


@pytest.mark.parametrize("case", BAD)
def test_bad_uploads(client, case):
    content, name, status, detail = BAD[case]
    is_refused(client, post(client, content, name), status, detail)
    answer = client.put("/session/", files={"files": (name, content)})
    is_refused(client, answer, status, detail)


def test_names_of_patients_are_not_logged(client, told):
    for content in (zipped("../MUSTER^ANNA"), zipped("MUSTER^ANNA", link=True)):
        for name in ("a.zip", "MUSTER^ANNA.zip", "MUSTER^ANNA.nii"):
            assert post(client, content, name).status_code == 400
    assert len(told) == 6 and not any("MUSTER" in line for line in told)


def test_bad_voxels(client, image, series):
    """Found by the prediction, after a sound header; or by the reader of DICOM."""
    for content, name, detail in (
        (
            nifti(np.full_like(image, np.nan)),
            "a.nii",
            "NaN or infinite, as float32, in 4096 voxels",
        ),
        (nifti(np.stack([image, image], 3)), "a.nii", "2 channels; 1 needed"),
        (nifti(image)[:-9], "a.nii", "16384 bytes of voxels at 352 are announced"),
        (bomb(image), "a.nii.gz", "more than the 16384 bytes of voxels"),
        (deflated(series[0]), "a.dcm", "a deflated transfer syntax"),
        (zipped("a", content=deflated(series[0])), "a.zip", "a deflated transfer syntax"),
    ):
        is_refused(client, post(client, content, name), 400, detail)


def test_an_image_that_ends_its_reader(client, image, listening, monkeypatch):
    """As decoders do at some damaged files: the server goes on."""
    with listening() as lines, monkeypatch.context() as patch:
        patch.setattr(Reader, "open", lambda self, path: self._ask(os.abort))
        answer = post(client, nifti(image))
    is_refused(client, answer, 400, "the image cannot be read; copy or convert it again")
    assert any("the process that reads images ended at one" in line for line in lines)
    assert post(client, nifti(image)).status_code == 200


def test_a_reader_that_ended_before_an_image_is_begun_anew(client, image, monkeypatch):
    read = Reader.open

    def open_after_its_end(self, path):
        self._process.kill()
        self._process.join()
        return read(self, path)

    monkeypatch.setattr(Reader, "open", open_after_its_end)
    assert post(client, nifti(image)).status_code == 200


def test_very_many_files(serving):
    names = [f"{number:05}" for number in range(10_001)]
    with serving() as client:
        is_refused(client, post(client, zipped(*names), "a.zip"), 413, "more than 10000 files")
        # A list of files that is longer than any of so many; its end says how long.
        many = zipped(*(f"{number:05}" + 500 * "x" for number in range(9_000)), content=b"")
        is_refused(client, post(client, many, "a.zip"), 413, "more than 10000 files")


def test_bad_requests(client, image):
    scan = {"file": ("a.nii", nifti(image))}
    for query, data, files, status, detail in (
        ({}, {}, {}, 400, "send a scan in the form field 'file', or session_id"),
        ({"image": "/etc/passwd"}, {}, {}, 404, "no image of that name from this client"),
        ({"image": "x" * 300}, {}, {}, 422, "image: String should have at most 256"),
        ({"session_id": "0" * 32}, {}, scan, 400, "a session_id and a file; send one of them"),
        ({"output": "x"}, {}, scan, 422, "output: Input should be 'all', 'image', 'json'"),
        ({"output": "dicom_seg"}, {}, scan, 400, "dicom_seg is of DICOM series"),
        ({"session_id": "../../x"}, {}, {}, 404, "no such session"),
        ({}, {"params": "{"}, scan, 400, "params: no JSON"),
        ({}, {"params": "[" * 60_000}, scan, 400, "params: no JSON"),
        ({}, {"params": "[]"}, scan, 400, "params: a JSON object is needed"),
        ({}, {"params": '{"mirror": "yes"}'}, scan, 400, "params: mirror is true or false"),
        ({}, {"params": "x" * 70_000}, scan, 400, "maximum size of 64KB"),
        ({}, {str(n): "x" for n in range(9)}, scan, 400, "Too many fields"),
        ({}, {}, {"files": scan["file"]}, 400, "files are taken in the form field 'file' alone"),
        ({}, {}, scan | {"label": scan["file"]}, 400, "Too many files"),
    ):
        answer = client.post(INFER, params=query, data=data, files=files)
        is_refused(client, answer, status, detail)
    for method, path, status, detail in (
        ("POST", "/infer/other", 404, "no such model; there is phantom"),
        ("GET", "/infer/phantom", 405, "Method Not Allowed"),
        ("GET", "/session/..%2f..%2fetc%2fpasswd", 404, "Not Found"),
        ("GET", "/session/" + "0" * 32, 404, "no such session"),
        ("DELETE", "/session/" + "0" * 32, 404, "no such session"),
        ("PUT", "/session/", 400, "no file in the form field 'files'"),
        ("PUT", "/session/?expiry=-1", 422, "expiry: Input should be greater"),
        ("PUT", "/datastore/?image=x", 400, "no file in the form field 'file'"),
        ("PUT", "/datastore/", 422, "image: Field required"),
        ("PUT", "/datastore/label?image=x", 501, "labels are not kept here"),
        ("GET", "/docs", 404, "Not Found"),
        ("GET", "/datastore/image?image=x", 405, "Method Not Allowed"),
        ("POST", "/train/", 404, "Not Found"),
    ):
        is_refused(client, client.request(method, path), status, detail)
    assert client.get("/health").json() == {"status": "ok", "waiting": 0}


@pytest.mark.parametrize("charset", ["undefined", "punycode", "x;\tCharset*0=undefined"])
def test_a_form_is_utf8_whatever_it_says(client, charset):
    """Of the codecs that there are some raise, and some take long."""
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    part = b'--x\r\ncontent-disposition: form-data; name="params"\r\n\r\n{\r\n--x--'
    answer = client.post(INFER, content=part, headers={"content-type": kind})
    is_refused(client, answer, 400, "params: no JSON")


def test_uploads_that_are_too_large_or_too_slow(client, serving, image):
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    start = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.nii"\r\n\r\n'
    taken = 0

    def endless():
        nonlocal taken
        yield start
        while taken < 2**26:
            taken += 2**16
            yield bytes(2**16)

    # Without a Content-Length; then with one that says so, and one of which nothing follows.
    answer = client.post(INFER, content=endless(), headers=boundary)
    is_refused(client, answer, 413, "the upload exceeds 0.25 MiB")
    answer = client.post(INFER, content=bytes(2**21), headers=boundary)
    is_refused(client, answer, 413, "the upload exceeds 0.25 MiB")
    with serving(Settings(UploadLimits(seconds=0.3))) as impatient:
        request = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n".encode()
        kind = f"content-type: {boundary['content-type']}\r\n\r\n".encode()
        with socket.create_connection(impatient.address, timeout=TIMEOUT) as slow:
            slow.sendall(request + kind + start)
            answer = b""
            while not answer.endswith(b"}"):
                answer += slow.recv(2**16)
            assert b" 408 " in answer and b'{"detail":"the upload took too long"}' in answer
        with socket.create_connection(impatient.address, timeout=TIMEOUT) as gone:
            gone.sendall(request + kind + start)
        assert impatient.get("/info/").status_code == 200
        deadline = time.monotonic() + TIMEOUT
        while list(impatient.root.iterdir()):
            assert time.monotonic() < deadline


def test_a_login_without_its_body_ends(serving, monkeypatch):
    monkeypatch.setattr(serving_server, "_IDLE", 0.2)
    monkeypatch.setattr(guard, "_LOGIN", UploadLimits(bytes=2**20, seconds=0.3))
    request = b"POST /auth/token HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n"
    kind = b"content-type: application/x-www-form-urlencoded\r\n\r\n"
    with (
        serving(Settings(token="sesame")) as client,
        socket.create_connection(client.address, timeout=TIMEOUT) as slow,
    ):
        slow.sendall(request + kind)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while more := slow.recv(2**16):
                answer += more
        assert b" 408 " in answer


def test_one_connection_too_many_is_told(serving, monkeypatch):
    monkeypatch.setattr(serving_server, "CONNECTIONS", 2)
    with serving() as client, socket.create_connection(client.address, timeout=TIMEOUT):
        assert client.get("/health").status_code == 200
        assert httpx.get(client.base_url.join("/health"), timeout=TIMEOUT).status_code == 503


def test_connections_on_which_nothing_goes_on_are_closed(serving, monkeypatch):
    monkeypatch.setattr(serving_server, "_IDLE", 0.2)
    with serving() as client:
        for sent in (b"", b"GET /info/ HTTP/1.1\r\nx: "):
            with socket.create_connection(client.address, timeout=TIMEOUT) as idle:
                idle.sendall(sent)
                with contextlib.suppress(ConnectionResetError):
                    assert idle.recv(100) == b""


def test_an_answer_may_be_fetched_slowly_but_not_never(serving, model, monkeypatch):
    monkeypatch.setattr(serving_server, "_IDLE", 0.5)
    size = 2**25  # more than the buffers of a connection
    monkeypatch.setattr(model, "info", lambda: {"text": "x" * size})
    request = b"GET /info/ HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving() as client:
        with socket.create_connection(client.address, timeout=TIMEOUT) as slow:
            slow.sendall(request)
            count, began = 0, time.monotonic()
            while count < size:
                count += len(slow.recv(2**18))
                time.sleep(0.05 if time.monotonic() < began + 2 else 0)
        with socket.create_connection(client.address, timeout=TIMEOUT) as never:
            never.sendall(request)
            deadline = time.monotonic() + TIMEOUT
            while len(client.server.server_state.connections) > 0:
                assert time.monotonic() < deadline
                time.sleep(0.05)


class Held:
    """A model that predicts when it is let, or raises what it is given."""

    def __init__(self, model):
        self._model, self.begun, self.go = model, threading.Event(), threading.Event()
        self.error = None

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, *arguments, **options):
        self.begun.set()
        assert self.go.wait(TIMEOUT)
        if self.error:
            raise self.error
        return self._model.predict(*arguments, **options)


def test_one_prediction_at_a_time_and_few_behind_it(serving, model, image, told, capfd):
    held, answers = Held(model), []
    with serving(Settings(queue=0), model=held) as client:
        ask = threading.Thread(target=lambda: answers.append(post(client, nifti(image))))
        ask.start()
        assert held.begun.wait(TIMEOUT)
        assert client.get("/health").json()["waiting"] == 1
        busy = post(client, nifti(image))
        held.go.set()
        ask.join()
        assert busy.status_code == 503 and int(busy.headers["retry-after"]) > 0
        assert answers[0].status_code == 200
        is_refused(client, busy, 503, "all places in the line are taken")
        assert post(client, nifti(image)).status_code == 200
        # What goes wrong inside is told in the log.
        for error, status, detail in (
            (MemoryError("Unable to allocate 9 GiB"), 413, "out of memory"),
            (OSError(28, "No space left on device"), 507, "the disk of the server is full"),
            (RuntimeError(f"at {client.root}"), 500, "an error of the server; its log says more"),
        ):
            held.error = error
            is_refused(client, post(client, nifti(image)), status, detail)
        assert f"RuntimeError: at {client.root}" in capfd.readouterr().err
        assert any(f"POST {INFER}: 500, " in line for line in told)


def test_at_the_end_the_prediction_at_work_is_done_and_no_other(serving, model, image):
    held, answers = Held(model), []

    def ask(client):
        answers.append(post(client, nifti(image)).status_code)

    with serving(model=held) as client:
        first, second = (threading.Thread(target=ask, args=(client,)) for _ in range(2))
        first.start()
        assert held.begun.wait(TIMEOUT)
        second.start()
        deadline = time.monotonic() + TIMEOUT
        while client.get("/health").json()["waiting"] < 2:
            assert time.monotonic() < deadline
        client.server.handle_exit(signal.SIGTERM, None)
        held.go.set()
        first.join()
        second.join()
    assert sorted(answers) == [200, 503]


# Sessions --------------------------------------------------------------------------------


def test_sessions_are_few_and_expire(client, image):
    first, second = post_session(client, image), post_session(client, image)
    assert client.get(f"/session/{first}", params={"update_ts": True}).status_code == 200
    third = post_session(client, image, expiry=1)
    found = [client.get(f"/session/{one}").status_code for one in (first, second, third)]
    assert found == [200, 404, 200]  # that of the longest rest made room
    assert len(list(client.root.iterdir())) == 2
    time.sleep(1.2)
    assert client.get(f"/session/{third}").status_code == 404
    assert client.get(f"/session/{first}").status_code == 200
    client.delete(f"/session/{first}")
    assert list(client.root.iterdir()) == []


class OneFile:
    stack, images = None, ()


def test_a_session_in_use_stays_until_its_end(tmp_path):
    def folder(name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image").write_bytes(bytes(10))
        return tmp_path / name

    now = [0.0]
    sessions = Sessions(Bounds(9, 25, 60.0), clock=lambda: now[0])
    first = sessions.add(folder("a"), OneFile)
    with sessions.use(first):
        now[0] = 100.0
        assert sessions.get(first.id) is first  # expired, and in use
        sessions.drop(first.id)
        with pytest.raises(Unknown):
            sessions.get(first.id)
        assert first.folder.exists()
    assert not first.folder.exists()
    second, third = sessions.add(folder("b"), OneFile), sessions.add(folder("c"), OneFile)
    with sessions.use(second):
        sessions.add(folder("d"), OneFile)  # 30 bytes: the third has to go
        with pytest.raises(Unknown):
            sessions.get(third.id)
        assert len(sessions) == 2
        # What finds no room, as too much is in use, takes none from others.
        (tmp_path / "e").mkdir()
        (tmp_path / "e" / "image").write_bytes(bytes(20))
        with pytest.raises(Full):
            sessions.add(tmp_path / "e", OneFile)
        assert len(sessions) == 2
        shutil.rmtree(tmp_path / "e")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "image").write_bytes(bytes(26))
    with pytest.raises(UserError, match="exceeds all that is kept"):
        sessions.add(tmp_path / "c", OneFile)


# Who may ask -----------------------------------------------------------------------------


def test_pages_of_other_origins_may_not_ask(client, serving):
    for origin in ("https://evil.example", "null", f"http://{client.address[0]}"):
        answer = client.get("/info/", headers={"origin": origin})
        is_refused(client, answer, 403, "may not ask; see --allow_origins")
        assert "access-control-allow-origin" not in answer.headers
    ours = "https://viewer.example"
    with serving(Settings(origins=(ours,))) as open_client:
        answer = open_client.get("/info/", headers={"origin": ours})
        assert answer.headers["access-control-allow-origin"] == ours
        asked = {"origin": ours, "access-control-request-method": "PUT"}
        assert open_client.options("/session/", headers=asked).status_code == 200
        for origin in ("https://evil.example", f"{ours}.evil.example"):
            answer = open_client.get("/info/", headers={"origin": origin})
            assert answer.status_code == 403


def test_a_token(serving, image):
    with serving(Settings(token="sesame")) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/auth/").json() == {"enabled": True}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic sesame"}):
            answer = client.get("/info/", headers=headers)
            is_refused(client, answer, 401, "a token is needed")
            answer = client.post(INFER, files={"file": ("a.nii", nifti(image))}, headers=headers)
            is_refused(client, answer, 401, "a token is needed")
        answer = client.post("/auth/token", data={"username": "me", "password": "guess"})
        is_refused(client, answer, 401, "the password is the token")
        answer = client.post("/auth/token", data={"username": "x" * 2**21, "password": "x"})
        is_refused(client, answer, 413, "the upload exceeds 1 MiB")
        answer = client.post("/auth/token", files={"password": ("a", b"sesame")})
        is_refused(client, answer, 400, "Too many files")
        login = client.post("/auth/token", data={"username": "me", "password": "sesame"}).json()
        headers = {"authorization": f"{login['token_type']} {login['access_token']}"}
        for path in ("/auth/token/valid", "/info/"):
            assert client.get(path, headers=headers).status_code == 200


def test_a_token_is_asked_for_by_the_path_that_is_routed():
    """Not by the address, into which some releases of Starlette put the header Host."""
    address, scope = SimpleNamespace(path="/health"), {"path": "/info/"}
    with pytest.raises(HTTPException):
        guard.guard("sesame", ())(SimpleNamespace(url=address, scope=scope, headers={}))


# The command -----------------------------------------------------------------------------


@pytest.fixture
def command(cache, run, tmp_path):
    """``command(name, *flags)``: another process; ``tmp_path/name`` is its temporary folder."""
    # The same programs as in this process, so that they are found compiled.
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    begun = []

    def begin(name, *arguments):
        line = [sys.executable, "-m", "mijax.serve", "--workdir", run.folder, "--name", name]
        (tmp_path / name).mkdir()
        environment = os.environ | settings | {"TMPDIR": str(tmp_path / name)}
        line = list(map(str, [*line, *arguments]))
        begun.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_the_command_ends_in_good_order(command, image, tmp_path):
    process = command("phantom", "--port=0", "--checkpoint=last")
    line = process.stderr.readline()
    assert line.startswith("mijax: phantom, step 12, at http://127.0.0.1:"), line
    address = line.split(" at ")[1].split(";")[0]
    files = {"files": ("a.nii", nifti(image))}
    session = httpx.put(f"{address}/session/", files=files, timeout=TIMEOUT).json()
    assert len(list((tmp_path / "phantom").glob("mijax-serve-*/*"))) == 1
    query = {"session_id": session["session_id"], "output": "image"}
    asked = {"params": query, "data": {"params": '{"trust": false}'}, "timeout": TIMEOUT}
    answer = httpx.post(f"{address}{INFER}", **asked)
    assert label_map(answer.content).shape == image.shape
    assert [" /" in process.stderr.readline() for _ in range(2)] == [True, True]
    process.send_signal(signal.SIGINT)
    lines = process.stderr.read().splitlines()
    assert process.wait(TIMEOUT) == 0, lines
    told = "mijax: Ctrl-C: comes to an end in good order; a second Ctrl-C ends at once"
    assert lines == [told, "mijax: ended"]
    assert list((tmp_path / "phantom").iterdir()) == []


def test_a_termination_ends_it_as_well(model, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with listen("127.0.0.1", 0) as listener:
        server = Server(make_app(model, tmp_path, Settings()))

        def terminate():
            while not server.started:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=terminate, daemon=True)
        thread.start()
        server.run([listener])
        thread.join()
    assert server.should_exit and signal.getsignal(signal.SIGTERM) == before


def test_what_the_command_refuses(run_here, run, tmp_path, monkeypatch):
    assert run_here("mijax.serve") == (2, "", ["needs --workdir RUN"])
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1, port {port}: Address already in use; see"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen on 203.0.113.9"):
        listen("203.0.113.9", 0)
    monkeypatch.setattr(serving_server, "listen", lambda *_: pytest.fail("it listens"))
    for name in ("session_minutes", "upload_seconds"):
        for given in ("inf", "nan"):
            code, _, lines = run_here("mijax.serve", "--workdir", run.folder, f"--{name}={given}")
            assert code == 1 and re.fullmatch(rf"--{name} is at most \d+, not {given}", lines[0])
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.setattr(serve, "flags", SimpleNamespace(FLAGS=SimpleNamespace(workdir=run.folder)))
    with pytest.raises(UserError, match=r"needs fastapi, which is not .* '.\[serve\]'"):
        serve.main([])
