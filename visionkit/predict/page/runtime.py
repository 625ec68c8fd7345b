"""Where a page gets onnxruntime-web from: its npm package, as a folder, as a file, or downloaded when asked.

It is not part of this package: its WebAssembly alone has 14 MB. Two of its files are used, the
single-threaded build without a GPU (`ort.wasm.bundle.min.mjs`) and the WebAssembly that it starts.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from visionkit.errors import DataError, InputError, RunError, first_line
from visionkit.files import local_path

__all__ = ["Runtime", "download_runtime", "find_runtime"]

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
ADDRESS = f"https://registry.npmjs.org/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
# As the registry states it for this version (`npm view onnxruntime-web@1.30.0 dist.integrity`).
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
MAJOR = "1."
SCRIPT = "dist/ort.wasm.bundle.min.mjs"
WASM = "dist/ort-wasm-simd-threaded.wasm"
_MAX_BYTES = 128 * 2**20  # of one of its files, and of the package as a file
HOW = (
    f"Get it with npm (`npm pack {PACKAGE}@{VERSION}` writes a .tgz, `npm install {PACKAGE}@{VERSION}` a "
    "node_modules) and give that by --runtime, or give --download to fetch and check it now (33 MB)."
)


@dataclass(frozen=True)
class Runtime:
    """The files of onnxruntime-web that a page needs.

    Args:
        version: Of the package.
        script: The module that runs in the page.
        wasm: The WebAssembly that it starts.
    """

    version: str
    script: bytes
    wasm: bytes


def find_runtime(path: str | Path) -> Runtime:
    """Read onnxruntime-web from where npm left it.

    Args:
        path: The unpacked package, a `node_modules` or a folder that holds one, or the `.tgz` of `npm pack`.

    Raises:
        InputError: There is nothing, it is another package or another major version.
        DataError: Files are missing from it, or it is damaged.
    """
    location = local_path(path, PACKAGE)
    if location.is_file():
        return _from_archive(location.read_bytes(), location)
    if not location.is_dir():
        raise InputError(f"Expected {PACKAGE} at {location}, but there is nothing. {HOW}")
    for folder in (location, location / "package", location / PACKAGE, location / "node_modules" / PACKAGE):
        if (folder / "package.json").is_file() and _name((folder / "package.json").read_bytes()) == PACKAGE:
            return _checked(lambda name, folder=folder: (folder / name).read_bytes(), folder)  # type: ignore[misc]
    raise InputError(f"Expected {PACKAGE} in {location}, but it is not there. {HOW}")


def download_runtime(*, address: str = ADDRESS, integrity: str = INTEGRITY, timeout: float = 60) -> Runtime:
    """Fetch the pinned version from the npm registry, and check it; nothing is kept on the disk.

    Args:
        address: Of the package as a `.tgz`.
        integrity: Its digest as npm writes it, "sha512-" and base64.
        timeout: Seconds without an answer after which it is given up.

    Raises:
        RunError: It cannot be fetched, or is not what was published under this version.
    """
    try:
        with urllib.request.urlopen(address, timeout=timeout) as answer:
            content = answer.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RunError(f"{address} cannot be fetched: {first_line(error)}. {HOW}") from error
    digest = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if digest != integrity:
        raise RunError(
            f"Expected {address} to have the digest {integrity}, but it has {digest}. It was changed on the "
            "way, or the download is incomplete: nothing of it was used."
        )
    return _from_archive(content, Path(address))


def _from_archive(content: bytes, source: Path) -> Runtime:
    """Read the package from the bytes of its `.tgz`; nothing is unpacked."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:

            def read(name: str) -> bytes:
                member = archive.getmember(f"package/{name}")
                stream = archive.extractfile(member) if member.isreg() and member.size <= _MAX_BYTES else None
                if stream is None:
                    raise DataError(f"{name} is no regular file of at most {_MAX_BYTES} bytes.", path=source)
                return stream.read()

            if _name(read("package.json")) != PACKAGE:
                raise InputError(f"Expected the package {PACKAGE} in {source}, but it is another. {HOW}")
            return _checked(read, source)
    except KeyError as error:
        raise DataError(f"is no package of {PACKAGE}: {first_line(error)}", path=source) from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"is no intact .tgz: {first_line(error)}. {HOW}", path=source) from error


def _name(content: bytes) -> str:
    try:
        return str(json.loads(content)["name"])
    except (ValueError, KeyError, TypeError):
        return ""


def _checked(read: Callable[[str], bytes], source: Path) -> Runtime:
    version = str(json.loads(read("package.json")).get("version"))
    if not version.startswith(MAJOR):
        raise InputError(f"Expected {PACKAGE} {MAJOR}x in {source}, but it is {version}. {HOW}")
    try:
        return Runtime(version, read(SCRIPT), read(WASM))
    except FileNotFoundError as error:
        raise DataError(f"lacks {error.filename}: it is not the whole package. {HOW}", path=source) from error
