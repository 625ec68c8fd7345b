"""The cache of a streamed set: what is not its own stays, and no server, kill or fork spoils or fills it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
from types import SimpleNamespace

import fsspec
import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.shard_server import ShardServer, make_pack, shard_bytes
from visionkit import cli
from visionkit.data import open_pack, open_stream
from visionkit.data.pack import cache as cache_module
from visionkit.data.pack.cache import FetchAhead, fetch_file
from visionkit.data.pack.layout import list_name, read_index, write_index
from visionkit.data.pack.tar import map_shard
from visionkit.errors import DataError, InputError, RunError
from visionkit.files import PART

FORK = multiprocessing.get_context("fork")
COUNT, RECORDS = 24, 4
SHARD = "/train-00000.tar"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("cache"), count=COUNT, records=RECORDS)


@pytest.fixture
def server(packed):
    with ShardServer(packed).running() as server:
        yield server


@pytest.fixture
def stream(server, packed, tmp_path, monkeypatch):
    """Open the pack of the server with room for a number of shards."""
    monkeypatch.setattr(cache_module, "_WAIT", 0.001)
    monkeypatch.setattr(cache_module, "_PATIENCE", 0.5)

    def start(shards: int = 3, window: int = 1):
        size = shard_bytes(packed, shards)
        return open_stream(server.address, tmp_path / "cache", max_bytes=size, window=window).train

    return start


def test_files_that_are_not_of_the_cache_are_neither_counted_nor_removed(stream, tmp_path):
    mine = tmp_path / "cache" / "shards" / "train-000.tar"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(bytes(1_000_000))
    os.utime(mine, (0, 0))
    reader = stream()
    assert all(reader[index]["image"].shape == (3, 20, 24) for index in range(COUNT))
    assert mine.stat().st_size == 1_000_000
    assert len([*mine.parent.glob("*.tar")]) == 1 + 3


def test_what_a_killed_process_left_goes_though_its_number_is_in_use_again(stream, packed, tmp_path):
    reader = stream()
    folder = tmp_path / "cache" / "shards"
    size = reader.cache.max_bytes
    other = "0" * 32  # of a shard that nobody fetches
    for name in (reader._shards[0].md5sum, other):
        for kind in ("room", "tar.1", f"tar.{os.getpid()}"):  # process 1 always runs
            with (folder / f"{name}.{kind}{PART}").open("wb") as stream_:
                stream_.truncate(size)
    assert reader[0]["image"].shape == (3, 20, 24)
    assert [*folder.glob(f"*{PART}")] == []


def endless(handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(64):  # 64 MiB, where a shard has some kilobytes
        handler.wfile.write(bytes(1 << 20))


def test_a_server_that_sends_too_much_too_little_or_another_file_cannot_fill_the_disk(
    stream, server, packed, monkeypatch
):
    reader = stream()
    largest = []
    take = cache_module.md5

    def looking(file):
        largest.append(file.stat().st_size)
        return take(file)

    monkeypatch.setattr(cache_module, "md5", looking)
    server.sent[SHARD] = [endless]
    with pytest.raises(DataError, match="more come") as caught:
        reader[0]
    assert SHARD in str(caught.value)
    assert largest == []
    whole = (packed / SHARD[1:]).read_bytes()
    server.sent[SHARD] = [whole[:-1] + b"x"]  # once another file: fetched again
    assert reader[0]["image"].shape == (3, 20, 24)
    assert largest == [len(whole)] * 2
    reader = stream()
    reader.cache.discard(reader._shards[0])
    server.sent[SHARD] = [whole[: len(whole) // 2]] * 2
    with pytest.raises(DataError, match="MD5") as caught:
        reader[0]
    assert caught.value.field == "md5sum"
    assert not [*reader.cache.folder.glob(f"*{PART}")]


@pytest.mark.parametrize("wrong", ["../../../mine", "", "0" * 31, "/etc/x", None])
def test_a_list_cannot_name_files_outside_the_cache(wrong, server, packed, tmp_path):
    listed = packed / list_name("train")
    whole = listed.read_text()
    plain = json.loads(whole)
    plain["shardlist"][0]["md5sum"] = wrong
    try:
        listed.write_text(json.dumps(plain))
        for opening in (
            lambda: open_stream(server.address, tmp_path / "a" / "cache", max_bytes=10**9),
            lambda: open_pack(packed),
        ):
            with pytest.raises(DataError, match="MD5 and the size of each shard") as caught:
                opening()
            assert caught.value.field == "md5sum"
    finally:
        listed.write_text(whole)


def test_a_damaged_description_is_an_error_that_names_the_field(packed):
    file = packed / "pack.json"
    whole, index = file.read_text(), (packed / "index.npz").read_bytes()
    plain = json.loads(whole)
    wrong = {name: plain | {name: 3} for name in plain if name != "format"}
    wrong |= {f"no {name}": {k: v for k, v in plain.items() if k != name} for name in plain}
    wrong["splits"] = plain | {"splits": {"train": -1}}
    wrong["settings"] = plain | {"settings": {"shortest": 2}}
    wrong["notices"] = plain | {"notices": [{"that": 2}]}
    try:
        for name, content in wrong.items():
            file.write_text(json.dumps(content))
            with pytest.raises(DataError, match="description of a pack") as caught:
                open_pack(packed)
            assert str(file) in str(caught.value), name
        assert len(wrong) == 9 + 10
        file.write_text(whole)
        columns = read_index(packed / "index.npz")
        as_json = [np.frombuffer(text, np.uint8) for text in (b'{"a": 1}', b"3", b"[1]")]
        for name, value in zip(
            ("ids", "ids", "targets", "rows"), [*as_json, columns["rows"][0]], strict=True
        ):
            write_index(packed / "index.npz", columns | {name: value})
            with pytest.raises(DataError, match="index is damaged"):
                open_pack(packed)
    finally:
        file.write_text(whole)
        (packed / "index.npz").write_bytes(index)


def test_a_full_disk_and_a_folder_that_is_gone_are_told_from_a_server_that_fails(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"x")

    def full(path, target, callback):
        raise OSError(errno.ENOSPC, "No space left on device", target)

    monkeypatch.setattr(cache_module, "_WAIT", 0.001)
    with pytest.raises(FileNotFoundError):
        fetch_file(f"file://{tmp_path}/x", tmp_path / "gone" / "x", max_bytes=10)
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda *_, **__: (SimpleNamespace(get_file=full), "x"))
    with pytest.raises(OSError, match="No space left"):
        fetch_file("s3://bucket/x", tmp_path / "y", max_bytes=10)


def test_a_shard_that_comes_while_another_process_counts_is_counted(stream, monkeypatch):
    reader, fetch = stream(), cache_module.fetch_file
    began, go_on = threading.Event(), threading.Event()

    def waiting(address, part, *, max_bytes):
        began.set()
        assert go_on.wait(20)
        fetch(address, part, max_bytes=max_bytes)

    monkeypatch.setattr(cache_module, "fetch_file", waiting)
    shard = reader._shards[0]
    thread = threading.Thread(target=reader.cache.get, args=(shard,))
    thread.start()
    assert began.wait(20)
    with reader.cache._lock("room"):
        go_on.set()
        while not reader.cache.local(shard).exists():
            assert thread.is_alive()
        thread.join(0.5)
        assert [*reader.cache.folder.glob(f"{shard.md5sum}.room{PART}")]
    thread.join(20)
    assert not [*reader.cache.folder.glob(f"*{PART}")]


def test_a_full_disk_is_named_with_the_bytes_that_are_free(stream, monkeypatch):
    reader = stream()

    def full(address, part, *, max_bytes):
        raise OSError(errno.ENOSPC, "No space left on device", str(part))

    monkeypatch.setattr(cache_module, "fetch_file", full)
    with pytest.raises(RunError, match=r"No space left on device \([\d,]+ bytes are free\)"):
        reader[0]


def test_fetching_ahead_goes_on_after_any_error_and_after_a_fork():
    done, wait = [], threading.Event()

    def get(shard):
        if shard == "bad":
            raise InputError("no such protocol")
        done.append(shard)
        wait.set()

    ahead = FetchAhead(SimpleNamespace(get=get), ["bad", "good"])
    ahead([0])
    ahead._thread.join(20)
    ahead([0, 1])
    assert wait.wait(20)
    assert done == ["good"]

    def child():
        wait.clear()
        ahead([1])
        os._exit(0 if wait.wait(20) else 1)

    with ahead._lock:  # as the thread of another process would hold it
        process = FORK.Process(target=child)
        process.start()
    process.join(30)
    assert process.exitcode == 0


def test_a_shard_that_was_removed_is_not_held_open_and_those_in_use_go_last(stream):
    reader = stream(window=3, shards=8)
    for index in (0, RECORDS, 2 * RECORDS):
        assert reader[index]["image"].shape == (3, 20, 24)
    assert list(reader._open) == [0, 1, 2]
    reader.cache.discard(reader._shards[1])
    for number in (0, 2):
        os.utime(reader.cache.local(reader._shards[number]), (1, 1))
    reader[3 * RECORDS]
    assert list(reader._open) == [0, 2, 3]
    assert all(reader.cache.local(reader._shards[number]).stat().st_mtime > 1 for number in (0, 2))
    reader[4 * RECORDS]
    assert list(reader._open) == [2, 3, 4]


def read_one(address, cache, size, index) -> None:
    torch.set_num_threads(1)
    assert open_stream(address, cache, max_bytes=size, window=1).train[index]["image"].shape == (3, 20, 24)


def test_processes_that_want_one_shard_fetch_it_once(server, packed, tmp_path):
    size = shard_bytes(packed, 3)
    children = [
        FORK.Process(target=read_one, args=(server.address, tmp_path, size, index)) for index in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert server.shards() == [SHARD]


@pytest.mark.parametrize("way", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_fetch_what_they_read(way, stream):
    reader = stream(shards=4)
    reader[0]  # the file system of this process is open when workers are forked
    loader = DataLoader(reader, batch_size=None, num_workers=2, multiprocessing_context=way)
    samples = list(loader)
    assert len(samples) == COUNT
    assert all(torch.equal(one["image"], reader[index]["image"]) for index, one in enumerate(samples))


def test_a_map_keeps_no_descriptor(tmp_path):
    before = psutil.Process().num_fds()
    maps = []
    for number in range(20):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 600)
        maps.append(map_shard(tmp_path / f"{number}"))
    assert psutil.Process().num_fds() == before
    assert [int(content[599]) for content in maps] == list(range(20))
    with pytest.raises(ValueError, match="read-only"):
        maps[0][0] = 1
    with pytest.raises(FileNotFoundError):
        map_shard(tmp_path / "none")
    name = tmp_path / os.fsdecode(b"\xff")
    name.write_bytes(b"x")
    assert map_shard(name).tobytes() == b"x"


def test_the_commands_check_and_copy_a_pack_at_an_address(server, packed, tmp_path, capsys):
    assert cli.main(["check", server.address]) == 2
    assert "--stream.cache FOLDER" in capsys.readouterr().out
    flags = ["--stream.cache", str(tmp_path / "cache"), "--stream.max_gb", "0.001"]
    assert cli.main(["check", server.address, *flags]) == 0
    assert "a pack at an address, 24 train, 8 val, 0 test: 0 errors" in capsys.readouterr().out
    assert cli.main(["pack", server.address, *flags, "--form", "raw", "--out", str(tmp_path / "copy")]) == 0
    ours, theirs = open_pack(tmp_path / "copy"), open_pack(packed)
    assert all(torch.equal(ours.train[i]["image"], theirs.train[i]["image"]) for i in range(COUNT))
    whole = (packed / SHARD[1:]).read_bytes()
    server.sent[SHARD] = [whole[:-1] + b"x"] * 8
    before = server.shards().count(SHARD)
    assert cli.main(["check", server.address, "--stream.cache", str(tmp_path / "another")]) == 2
    said = capsys.readouterr()
    assert SHARD in said.out
    assert "1 error." in said.err
    # Twice for the sample that asks, and not again for each of the others.
    assert server.shards().count(SHARD) - before == 2
