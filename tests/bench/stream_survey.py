"""Memory and disk while a set several times larger than its cache is streamed from the loopback.

python -m tests.bench.stream_survey                       # 2 GB of raw pixels through 200 MB; a few minutes
python -m tests.bench.stream_survey --images 400 --workers 0

One epoch of batches and a validation through a `DataModule`; every 50 ms the memory of the process and its
workers, pages that they share counted once (anonymous: what cannot be dropped; file: mapped shards and
libraries, which can), the disk that the cache takes, and the shards that were removed but are held open.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.data.shard_server import ShardServer
from visionkit.data import (
    DataModule,
    PackSettings,
    Splits,
    classification_eval,
    classification_train,
    open_stream,
    pack,
    stack_batch,
)

HEIGHT, WIDTH, RECORDS, WINDOW = 256, 341, 64, 4


class RandomImages:
    """Images of random pixels, each a function of its number."""

    def __init__(self, count: int) -> None:
        self.ids = [f"{number:09d}" for number in range(count)]
        self.labels = [number % 10 for number in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        pixels = torch.randint(
            0, 256, (HEIGHT, WIDTH, 3), generator=torch.Generator().manual_seed(index), dtype=torch.uint8
        )
        return {"image": pixels.permute(2, 0, 1), "id": self.ids[index], "size": (HEIGHT, WIDTH),
                "label": torch.tensor(self.labels[index])}  # fmt: skip


def serve(folder: Path, told: Any) -> None:
    """Serve a folder until the process is ended."""
    server = ShardServer(folder)
    told.send(server.address)
    with server.running():
        time.sleep(10**6)


class Meter:
    """The largest values that a thread saw.

    Args:
        cache: The folder of the cache.
        server: The process that is not counted.
    """

    def __init__(self, cache: Path, server: int | None) -> None:
        self.cache, self.server, self._stop = cache, server, False
        self.most = dict.fromkeys(("anonymous", "file", "disk", "held"), 0)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Return the largest values, in bytes."""
        self._stop = True
        self._thread.join()
        return self.most

    def _watch(self) -> None:
        while not self._stop:
            now = self._now()
            self.most = {name: max(value, now[name]) for name, value in self.most.items()}
            time.sleep(0.05)

    def _now(self) -> dict[str, int]:
        anonymous = mapped = 0
        held: dict[str, int] = {}
        me = psutil.Process()
        for process in (me, *(child for child in me.children() if child.pid != self.server)):
            with contextlib.suppress(OSError, TypeError):  # one that is ending has no memory any more
                facts = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
                anonymous += 1024 * int(re.search(r"Pss_Anon:\s+(\d+)", facts)[1])  # type: ignore[index]
                mapped += 1024 * int(re.search(r"Pss_File:\s+(\d+)", facts)[1])  # type: ignore[index]
                for line in lines:
                    if str(self.cache) in line and line.endswith("(deleted)"):
                        first, last = line.split()[0].split("-")
                        held[line.split()[4]] = int(last, 16) - int(first, 16)
        disk = 0
        for file in (self.cache / "shards").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                disk += 512 * file.stat().st_blocks
        return {"anonymous": anonymous, "file": mapped, "disk": disk, "held": sum(held.values())}


def main() -> None:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser("stream_survey", description=__doc__)
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--max_mb", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as top:
        source = Splits(
            RandomImages(args.images), RandomImages(RECORDS * 4), None, tuple("0123456789"), "random"
        )
        packed = pack(source, Path(top) / "pack", settings=PackSettings(form="raw", short=0, records=RECORDS))
        listen, told = multiprocessing.Pipe(duplex=False)
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(packed, told), daemon=True)
        server.start()
        cache, address = Path(top) / "cache", listen.recv()
        cache.mkdir()
        splits = open_stream(address, cache, max_bytes=args.max_mb * 10**6, window=WINDOW)
        data = DataModule(
            splits, batch_size=32, train_transform=classification_train(64),
            eval_transform=classification_eval(64), collate=stack_batch, workers=args.workers,
        )  # fmt: skip
        before, began = Meter(cache, server.pid).stop(), time.perf_counter()
        meter = Meter(cache, server.pid)
        images = sum(len(batch["ids"]) for loader in (data.train_dataloader(), data.val_dataloader())
                     for batch in loader)  # fmt: skip
        seconds = time.perf_counter() - began
        most = meter.stop()
        size = sum(file.stat().st_size for file in packed.glob("*.tar"))
        server.terminate()
    facts = {"images": images, "set": size, "bound": args.max_mb * 10**6, "workers": args.workers}
    facts |= {"before": before, "most": most, "seconds": round(seconds, 1), "cores": os.cpu_count()}
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
