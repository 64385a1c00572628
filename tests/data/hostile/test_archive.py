"""An archive of a data set, and its download."""

import gzip
import hashlib
import io
import tarfile
import urllib.error
from http.client import IncompleteRead

import pytest
from folders import write_msd

from mijax.data.sources.spleen import fetch_spleen
from mijax.errors import UserError


def member(name: str, content: bytes = b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive_of(*members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(*member("Task09_Spleen", type=tarfile.DIRTYPE, mode=0o755)[:1])
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


INSIDE = "Task09_Spleen/dataset.json"
WHOLE = archive_of(member(INSIDE, b"{}" * 1000))
ARCHIVES = {
    "climbs": archive_of(member("../escaped", b"x")),
    "climbs from within": archive_of(member("Task09_Spleen/../../../escaped", b"x")),
    "folder climbs": archive_of(member("../../escaped", type=tarfile.DIRTYPE, mode=0o755)),
    "link out": archive_of(member(INSIDE, type=tarfile.SYMTYPE, linkname="../../../secret")),
    "link from the root": archive_of(member(INSIDE, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "link within": archive_of(member(INSIDE, type=tarfile.SYMTYPE, linkname="a")),
    "link and a file through it": archive_of(
        member("Task09_Spleen/a", type=tarfile.SYMTYPE, linkname="../.."),
        member("Task09_Spleen/a/escaped", b"x"),
    ),
    "hard link out": archive_of(member(INSIDE, type=tarfile.LNKTYPE, linkname="../secret")),
    "hard link from the root": archive_of(member(INSIDE, type=tarfile.LNKTYPE, linkname="/secret")),
    "character device": archive_of(member(INSIDE, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block device": archive_of(member(INSIDE, type=tarfile.BLKTYPE, devmajor=8)),
    "pipe": archive_of(member(INSIDE, type=tarfile.FIFOTYPE)),
    "cut within a member": WHOLE[:1700],
    "cut within a header": WHOLE[:700],
    "claims a terabyte": archive_of()[:512]
    + member(INSIDE, size=2**40)[0].tobuf(tarfile.GNU_FORMAT)
    + bytes(512),
    "empty": b"",
    "text": b"hello" * 300,
    "zeros": bytes(10240),
    "compressed": gzip.compress(WHOLE),
    "compressed bomb": gzip.compress(WHOLE + bytes(2**24)),
    "another folder": WHOLE.replace(b"Task09_Spleen", b"Task03_Spleen"),
    "file in place of the folder": tarfile.TarInfo("Task09_Spleen").tobuf() + bytes(1024),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archive(tmp_path, refused, case):
    archive, cache = tmp_path / "archive.tar", tmp_path / "cache"
    archive.write_bytes(ARCHIVES[case])
    (tmp_path / "secret").write_text("not for the cache")
    md5 = hashlib.md5(ARCHIVES[case]).hexdigest()
    refused(lambda: fetch_spleen(cache, url=archive.as_uri(), md5=md5), "archive.tar: ")
    assert not list(cache.iterdir())


def test_absolute_member_stays_in_its_folder_and_goes_with_it(tmp_path):
    """tarfile's data filter takes the slash away."""
    archive, cache = tmp_path / "archive.tar", tmp_path / "cache"
    outside = tmp_path / "escaped"
    archive.write_bytes(archive_of(member(INSIDE, b"{}"), member(str(outside), b"x")))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    folder = fetch_spleen(cache, url=archive.as_uri(), md5=md5)
    assert not outside.exists()
    assert [path.name for path in cache.rglob("*")] == ["Task09_Spleen", "dataset.json"]
    assert folder == cache / "Task09_Spleen"


class Answer(io.BytesIO):
    def __init__(self, content=b"", error=None, **headers):
        super().__init__(content)
        self.error, self.headers = error, headers

    def read(self, size=-1):
        if self.error and not (content := super().read(size)):
            raise self.error
        return content if self.error else super().read(size)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(WHOLE[:-1]),
        Answer(WHOLE + b"x"),
        Answer(b"<html>404</html>"),
        Answer(WHOLE, **{"Content-Length": str(2**60)}),
        Answer(WHOLE, **{"Content-Length": "many"}),
        Answer(WHOLE[:100], error=IncompleteRead(b"x")),
        Answer(WHOLE[:100], error=ConnectionResetError("reset")),
        Answer(WHOLE[:100], error=TimeoutError("timed out")),
        urllib.error.URLError("no such host"),
        IncompleteRead(b""),
    ],
    ids=["cut", "longer", "page", "huge", "length", "partial", "reset", "late", "host", "nothing"],
)
def test_download(tmp_path, refused, monkeypatch, answer):
    def urlopen(url, timeout):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    md5 = hashlib.md5(WHOLE).hexdigest()
    refused(lambda: fetch_spleen(tmp_path / "cache", url="https://a/b.tar", md5=md5), "b.tar: ")
    assert not list((tmp_path / "cache").iterdir())


def test_download_fails_in_one_line(tmp_path):
    with pytest.raises(UserError, match="--config.data.source.dir=FOLDER") as caught:
        fetch_spleen(tmp_path, url="http://127.0.0.1:9/Task09_Spleen.tar")
    assert "refused" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_download_with_a_wrong_checksum_leaves_nothing(tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(b"half of it")
    with pytest.raises(UserError, match="md5"):
        fetch_spleen(tmp_path / "cache", url=archive.as_uri())
    assert not list((tmp_path / "cache").iterdir())


def test_download_is_unpacked(tmp_path):
    write_msd(tmp_path / "Task09_Spleen")
    archive = tmp_path / "archive.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "Task09_Spleen", "Task09_Spleen")
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    folder = fetch_spleen(tmp_path / "cache", url=archive.as_uri(), md5=md5)
    assert (folder / "dataset.json").is_file()
    assert fetch_spleen(tmp_path / "cache", url="http://127.0.0.1:9/") == folder
