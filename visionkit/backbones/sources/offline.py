"""Finding weights on this machine first; failing in seconds, with the ways out, without a hub."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from visionkit.errors import InputError

__all__ = ["cached_url", "download", "through_hub", "unreachable"]

_PATIENCE = 5.0


def cached_url(url: str) -> Path | None:
    """Return where torch keeps the file of an address on this machine, or None when it is not there."""
    file = _cache_file(url)
    return file if file.is_file() else None


def _cache_file(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def download(url: str, *, name: str, digest_prefix: str = "") -> Path:
    """Fetch an address into torch's cache, atomically, and return the file.

    Args:
        url: Where the weights are.
        name: The backbone, for the error.
        digest_prefix: First digits of the file's SHA-256, checked when given.

    Raises:
        InputError: The address cannot be reached; the text says what works without it.
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
    """Run a hub client's download after making sure, in seconds, that its host answers at all."""
    if not _answers(host):
        raise unreachable(name, urlsplit(host).netloc or host)
    try:
        return fetch()
    except Exception as error:
        raise unreachable(name, urlsplit(host).netloc or host, error) from error


def unreachable(name: str, host: str, cause: BaseException | None = None) -> InputError:
    """Return the error for weights that cannot be fetched: what failed, and the ways out."""
    lines = str(cause).splitlines() if cause is not None else []
    why = f" ({type(cause).__name__}: {lines[0][:160] if lines else ''})" if cause is not None else ""
    return InputError(
        f"The pretrained weights of {name!r} are not on this machine, and {host} does not give them{why}. "
        "Ways out: init='/path/to/weights.safetensors' (a file of this architecture); "
        "a backbone whose weights come as a Python package, such as 'packaged/efficientnet_lite0'; "
        "or init='scratch'."
    )


def _answers(url: str) -> bool:
    """Whether a host answers within seconds; the name lookup has no timeout, so a thread waits for it."""
    answered: list[bool] = []

    def knock() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PATIENCE):
                answered.append(True)
        except urllib.error.HTTPError:
            answered.append(True)
        except Exception:
            answered.append(False)

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(answered and answered[0])
