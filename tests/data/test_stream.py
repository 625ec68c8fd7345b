"""Packs over http from the loopback: the same batches by any processes, after any kill, on a bounded disk."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.shard_server import ShardServer, make_pack, shard_bytes
from visionkit.data import (
    CopyPaste,
    DataModule,
    ShardBatchSampler,
    Subset,
    aspect_groups,
    classification_eval,
    classification_train,
    open_pack,
    open_stream,
    stack_batch,
    subset,
)
from visionkit.data.folds import regroup
from visionkit.data.formats.keypoints.per_object import ObjectReader
from visionkit.data.keyed_dataset import KeyedDataset
from visionkit.data.pack import cache as cache_module
from visionkit.data.unseen_classes import Relabelled
from visionkit.errors import DataError, InputError, RunError

FORK = multiprocessing.get_context("fork")
COUNT, RECORDS, WINDOW, WIDTH = 60, 4, 2, 6  # samples, a shard, shards mixed, samples a global batch


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("stream"), count=COUNT, records=RECORDS)


@pytest.fixture
def server(packed):
    with ShardServer(packed).running() as server:
        yield server


@pytest.fixture
def address(server):
    return server.address


def bound(packed: Path, shards: int = 2 * WINDOW + 1) -> int:
    return shard_bytes(packed, shards)


def on_disk(cache: Path) -> int:
    """Bytes that the system gave to the shards, whole or in part."""
    total = 0
    for file in (cache / "shards").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += 0 if file.is_dir() else min(file.stat().st_size, 512 * file.stat().st_blocks)
    return total


def digest(samples) -> str:
    batch = stack_batch(samples)
    content = batch["images"].numpy().tobytes() + batch["labels"].numpy().tobytes()
    return hashlib.blake2b(content + "".join(batch["ids"]).encode(), digest_size=8).hexdigest()


def batches(reader, *, start: int = 0, count: int = 25, rank: int = 0, world: int = 1):
    """The samples of this process's batches from `start` on, over epochs."""
    data, position = KeyedDataset(reader, classification_train(16), seed=3), [start]
    order = ShardBatchSampler(
        reader.shard_numbers, window=WINDOW, batch_size=WIDTH // world, seed=3, rank=rank, world_size=world,
        position=lambda: position[0], fetch=getattr(reader, "fetch", None),
    )  # fmt: skip
    while position[0] < start + count:
        for keys in order:
            if position[0] == start + count:
                return
            yield [data[key] for key in keys]
            position[0] += 1


@pytest.fixture(scope="module")
def want(packed) -> list[str]:
    reader = open_pack(packed).train
    reader.shard_numbers = [index // RECORDS for index in range(COUNT)]
    return [digest(samples) for samples in batches(reader)]


def read_part(address, cache, size, rank, world, file) -> None:
    torch.set_num_threads(1)
    reader = open_stream(address, cache, max_bytes=size, window=WINDOW).train
    Path(file).write_bytes(pickle.dumps(list(batches(reader, count=13, rank=rank, world=world))))


def test_batches_are_those_of_the_pack_for_one_two_and_three_processes(address, packed, want, tmp_path):
    compared = 0
    for world in (1, 2, 3):
        cache, size = tmp_path / f"cache-{world}", bound(packed)
        files = [tmp_path / f"{world}-{rank}" for rank in range(world)]
        children = [
            FORK.Process(target=read_part, args=(address, cache, size, rank, world, file))
            for rank, file in enumerate(files)
        ]
        for child in children:
            child.start()
        while any(child.is_alive() for child in children):
            assert on_disk(cache) <= size
            time.sleep(0.05)
        assert [child.exitcode for child in children] == [0] * world
        parts = [pickle.loads(file.read_bytes()) for file in files]
        for number, whole in enumerate(zip(*parts, strict=True)):
            assert digest([sample for part in whole for sample in part]) == want[number]
            compared += 1
    assert compared == 3 * 13


def go_on(address, cache, size, log, count) -> None:
    """Read from where the log ends, and write a line for each batch."""
    torch.set_num_threads(1)
    reader = open_stream(address, cache, max_bytes=size, window=WINDOW).train
    done = len(Path(log).read_text().split("\n")) - 1
    for samples in batches(reader, start=done, count=count - done):
        line = digest(samples) + "\n"
        handle = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(handle, line.encode())
        os.close(handle)


@pytest.mark.parametrize(
    "kills", [6, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])]
)
def test_kills_change_no_batch_and_leave_the_disk_bounded(address, packed, want, tmp_path, kills):
    cache, log, size = tmp_path / "cache", tmp_path / "log", bound(packed)
    rng, killed, differing, compared, rounds = random.Random(0), 0, 0, 0, 0
    while killed < kills:
        log.write_text("")
        rounds += 1
        while log.read_text().count("\n") < len(want):
            child = FORK.Process(target=go_on, args=(address, cache, size, log, len(want)))
            child.start()
            child.join(rng.uniform(0.02, 0.3) if killed < kills else 60)
            if child.exitcode is None:
                os.kill(child.pid, signal.SIGKILL)
                child.join()
                killed += 1
            else:
                assert child.exitcode == 0
            assert on_disk(cache) <= size
            if rng.random() < 0.1:  # a shard is damaged while nobody reads
                for file in sorted((cache / "shards").glob("*.tar"))[:1]:
                    content = bytearray(file.read_bytes())
                    content[len(content) // 2] ^= 1
                    file.write_bytes(content)
        lines = log.read_text().split()
        compared += len(lines)
        differing += sum(one != other for one, other in zip(lines, want, strict=True))
    assert (differing, compared) == (0, rounds * 25)


def test_shards_are_fetched_ahead_once_and_used_again(server, packed, tmp_path):
    address = server.address
    size = bound(packed, 40)
    reader = open_stream(address, tmp_path, max_bytes=size, window=WINDOW).train
    first = next(batches(reader))
    assert len(first) == WIDTH
    ahead = 2 * WINDOW
    for _ in range(200):
        fetched = server.shards()
        if len(fetched) == ahead:
            break
        time.sleep(0.02)
    assert len(fetched) == len(set(fetched)) == ahead
    assert [len(each) for each in batches(reader, count=10)] == [WIDTH] * 10
    fetched = server.shards()
    assert sorted(fetched) == sorted(f"/train-{number:05d}.tar" for number in range(COUNT // RECORDS))
    again = open_stream(address, tmp_path, max_bytes=size, window=WINDOW)
    for index in range(COUNT):
        assert torch.equal(pickle.loads(pickle.dumps(again.train))[index]["image"], reader[index]["image"])
    assert len(again.val) == 8
    assert server.shards() == fetched


def test_the_data_module_orders_by_shards_with_workers_and_a_fraction(address, packed, tmp_path):
    splits = open_stream(address, tmp_path, max_bytes=bound(packed), window=WINDOW)
    common = {"batch_size": WIDTH, "train_transform": classification_train(16), "collate": stack_batch}
    common["eval_transform"] = classification_eval(16)
    got = []
    data = DataModule(splits, **common, seed=3)
    for workers in (0, 2):
        loader = DataLoader(
            data.train_data, batch_sampler=data.train_order(), num_workers=workers, collate_fn=stack_batch,
            persistent_workers=False,
        )  # fmt: skip
        got.append({tuple(batch["ids"]): batch["images"] for _ in range(2) for batch in loader})
    both = got[0].keys() & got[1].keys()  # loaders with workers begin a pass of their own first
    assert len(both) >= 10
    assert all(torch.equal(got[0][ids], got[1][ids]) for ids in both)
    half = DataModule(splits, **common, seed=3, fraction=0.5)
    chosen = subset(splits.train, 0.5, seed=3)
    order = half.train_order().epoch_order(0)
    assert sorted(order) == list(range(COUNT // 2))
    windows = [chosen.shard_numbers[index] for index in order]
    changes = sum(len({*windows[: i + 1]} & {*windows[i + 1 :]}) > 2 * WINDOW for i in range(len(windows)))
    assert changes == 0
    with pytest.raises(InputError, match="shard by shard, but got 'balanced'"):
        DataModule(splits, **common, sampler="balanced")
    eval_ids = [name for batch in DataModule(splits, **common).val_dataloader() for name in batch["ids"]]
    assert eval_ids == list(splits.val.ids)


def test_an_order_is_a_permutation_within_its_windows():
    shards = [index // 5 for index in range(23)]
    orders = [
        ShardBatchSampler(shards, window=2, batch_size=4, seed=1).epoch_order(epoch) for epoch in range(4)
    ]
    for order in orders:
        assert sorted(order) == list(range(23))
        assert len({shards[index] for index in order[:8]}) <= 2
    assert len({tuple(order) for order in orders}) == 4
    with pytest.raises(InputError, match="window"):
        ShardBatchSampler(shards, window=0, batch_size=4, seed=1)


def test_groups_are_cut_within_windows_and_no_sample_is_lost():
    shards = [index // 5 for index in range(60)]
    sizes = [(10, 20) if index % 4 else (20, 10) for index in range(60)]
    fetched = []
    order = ShardBatchSampler(
        shards, window=2, batch_size=4, seed=1, grouping=aspect_groups(sizes), fetch=fetched.append
    )
    plain = ShardBatchSampler(shards, window=2, batch_size=4, seed=1)
    places = {index: position for position, index in enumerate(plain.epoch_order(0))}
    batches = order.global_batches(0)
    assert sorted(index for batch in batches for index in batch) == list(range(60))
    assert [len(batch) for batch in batches] == [4] * 15
    alike = sum(len({sizes[index] for index in batch}) == 1 for batch in batches)
    assert alike > sum(len({sizes[index] for index in batch}) == 1 for batch in plain.global_batches(0))
    for number, batch in enumerate(batches):  # from its own window of 10 samples, or the one before
        assert max(places[index] for index in batch) // 10 - number * 4 // 10 in (0, 1)
        assert max(places[index] for index in batch) // 10 - min(places[index] for index in batch) // 10 <= 1
    assert [[key.index for key in keys] for keys in order] == batches
    assert len(fetched) == 6


def test_splits_of_a_stream_are_not_joined_and_cut_anew(address, packed, tmp_path):
    splits = open_stream(address, tmp_path, max_bytes=bound(packed), window=WINDOW)
    with pytest.raises(InputError, match="streamed set as they are"):
        regroup(splits, folds=3)
    with pytest.raises(InputError, match="paste from, but the set is streamed"):
        CopyPaste(splits.train, lambda sample, rng: sample)


def test_what_cannot_be_read_is_named(address, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_WAIT", 0.001)
    with pytest.raises(InputError, match="two windows of 2 shards"):
        open_stream(address, tmp_path, max_bytes=1000, window=2)
    with pytest.raises(InputError, match="samples have boxes"):
        open_stream(address, tmp_path, max_bytes=bound(packed), window=2, fields=("boxes",))
    with pytest.raises(DataError, match=r"nowhere/pack\.json"):
        open_stream(f"{address}/nowhere", tmp_path, max_bytes=bound(packed), window=2)
    with pytest.raises(RunError, match="in 4 attempts"):
        open_stream("http://127.0.0.1:9/pack", tmp_path, max_bytes=bound(packed), window=2)
    with pytest.raises(InputError, match="fsspec opens"):
        open_stream("nothing://pack", tmp_path, max_bytes=bound(packed), window=2)
    reader = open_stream(address, tmp_path, max_bytes=bound(packed), window=2).train
    shard = packed / "train-00003.tar"
    content = shard.read_bytes()
    try:
        shard.write_bytes(content[:-1] + b"x")
        with pytest.raises(DataError, match="the shard is damaged") as caught:
            reader[3 * RECORDS]
        assert caught.value.field == "md5sum"
        shard.unlink()
        with pytest.raises(DataError, match=r"train-00003\.tar.*there is none"):
            reader[3 * RECORDS]
    finally:
        shard.write_bytes(content)
    assert reader[3 * RECORDS]["image"].shape == (3, 20, 24)
    assert not list((tmp_path / "shards").glob("*visionkit-part"))


def test_views_of_a_stream_keep_its_order(address, packed, tmp_path):
    splits = open_stream(address, tmp_path, max_bytes=bound(packed), window=WINDOW)
    reader = splits.train
    reader.keypoint_counts = [[3, 0, 2]] * COUNT
    views = {
        "half": (Subset(reader, range(COUNT // 2)), 1),
        "other numbers": (Relabelled(reader, [1, 0]), 1),
        "objects": (ObjectReader(reader), 2),
    }
    for name, (view, count) in views.items():
        assert view.shard_numbers == [index // count // RECORDS for index in range(len(view))], name
        assert (view.window, view.fetch) == (WINDOW, reader.fetch)
        assert isinstance(
            DataModule(
                replace(splits, train=view), batch_size=WIDTH, train_transform=classification_train(16),
                eval_transform=classification_eval(16), collate=stack_batch,
            ).train_order(),
            ShardBatchSampler,
        )  # fmt: skip


def test_evaluation_fetches_the_next_shard_ahead(server, packed, tmp_path):
    splits = open_stream(server.address, tmp_path, max_bytes=bound(packed), window=WINDOW)
    assert len(splits.val[0]["id"]) > 0
    ahead = splits.val.fetch._thread
    if ahead is not None:
        ahead.join(20)
    assert sorted(server.shards()) == ["/val-00000.tar", "/val-00001.tar"]
    splits.val[RECORDS]
    assert len(server.shards()) == 2
