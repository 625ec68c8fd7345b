"""Cached and downloaded weights files; a hub that does not answer is reported within seconds."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from visionkit.errors import InputError

__all__ = ["cached_url", "download", "through_hub", "unreachable"]

_TIMEOUT = 5.0  # seconds


def cached_url(url: str) -> Path | None:
    """Return the file of a URL in torch's download cache, or None when it is not there."""
    file = _cache_file(url)
    return file if file.is_file() else None


def _cache_file(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def download(url: str, *, name: str, digest_prefix: str = "") -> Path:
    """Download a URL into torch's cache, atomically, and return the file.

    Args:
        url: Address of the weights file.
        name: The backbone, for the error message.
        digest_prefix: First digits of the file's SHA-256, checked when given.

    Raises:
        InputError: The address cannot be reached; the text lists alternatives.
    """
    import torch

    file = _cache_file(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    if not _answers(url):
        raise unreachable(name, urlsplit(url).netloc)
    try:
        torch.hub.download_url_to_file(url, str(file), digest_prefix or None, progress=False)
    except Exception as error:
        raise unreachable(name, urlsplit(url).netloc, error) from error
    return file


def through_hub(name: str, host: str, fetch: Callable[[], Path]) -> Path:
    """Run a hub client's download after checking, within seconds, that its host answers.

    Raises:
        InputError: The host does not answer, or the download fails; the text lists alternatives.
    """
    if not _answers(host):
        raise unreachable(name, urlsplit(host).netloc or host)
    try:
        return fetch()
    except Exception as error:
        raise unreachable(name, urlsplit(host).netloc or host, error) from error


def unreachable(name: str, host: str, cause: BaseException | None = None) -> InputError:
    """Return the error for weights that cannot be downloaded: the cause, and the alternatives."""
    lines = str(cause).splitlines() if cause is not None else []
    why = f" ({type(cause).__name__}: {lines[0][:160] if lines else ''})" if cause is not None else ""
    return InputError(
        f"The pretrained weights of {name!r} are not on this machine, and {host} does not give them{why}. "
        "Ways out: init='/path/to/weights.safetensors' (a file of this architecture); "
        "a backbone whose weights come as a Python package, such as 'packaged/efficientnet_lite0'; "
        "or init='scratch'."
    )


def _answers(url: str) -> bool:
    """Return whether a host answers within seconds. A thread waits: name lookups have no timeout."""
    answered: list[bool] = []

    def send_head_request() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_TIMEOUT):
                answered.append(True)
        except urllib.error.HTTPError:
            answered.append(True)
        except Exception:
            answered.append(False)

    thread = threading.Thread(target=send_head_request, daemon=True)
    thread.start()
    thread.join(_TIMEOUT)
    return bool(answered and answered[0])
