"""MSD task 9, spleen: downloaded, checked and unpacked under the cache."""

import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from mijax.errors import UserError
from mijax.files import remove_abandoned

URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/Task09_Spleen.tar"
MD5 = "410d4a301da4e5b2f6f86ec3ddba524e"
_UNFINISHED = ".mijax-spleen-"
_TIMEOUT = 10  # seconds without an answer
_CHUNK = 1 << 20


def fetch_spleen(cache: Path, *, url: str = URL, md5: str = MD5) -> Path:
    """The folder Task09_Spleen under the cache; 1.5 GB are downloaded the first time.

    The folder appears in one rename when everything is there and the checksum is right.

    Raises:
      UserError: no network, a wrong checksum or no space; says how to pass a folder instead.
    """
    target = cache / "Task09_Spleen"
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        remove_abandoned(cache.glob(f"{_UNFINISHED}*"))
        with tempfile.TemporaryDirectory(dir=cache, prefix=_UNFINISHED) as folder:
            archive = Path(folder) / "archive.tar"
            _download(url, archive, md5)
            with tarfile.open(archive, "r:") as tar:
                tar.extractall(folder, filter=_plain)
            archive.unlink()
            unpacked = Path(folder) / "Task09_Spleen"
            if not (unpacked / "dataset.json").is_file():
                raise OSError("no Task09_Spleen/dataset.json in the archive")
            os.replace(unpacked, target)
    except (OSError, ValueError, tarfile.TarError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{url}: cannot be fetched into {cache} ({reason}); fetch and unpack it elsewhere and "
            "pass --config.data.source.dir=FOLDER"
        ) from error
    return target


def _plain(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """tarfile's data filter, for files and folders alone: this archive has no links."""
    if not (member.isfile() or member.isdir()):
        raise tarfile.SpecialFileError(member)
    return tarfile.data_filter(member, folder)


def _download(url: str, path: Path, md5: str) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        if total and shutil.disk_usage(path.parent).free < 2 * total:
            raise OSError(f"{2 * total / 1e9:.1f} GB of free space are needed")
        print(f"downloading {url} ({total / 1e9:.1f} GB)", file=sys.stderr, flush=True)
        done = 0
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if sys.stderr.isatty() and total:
                print(f"\r{done / total:4.0%}", end="", file=sys.stderr, flush=True)
    if digest.hexdigest() != md5:
        raise OSError(f"md5 {digest.hexdigest()} instead of {md5} after {done} bytes")
