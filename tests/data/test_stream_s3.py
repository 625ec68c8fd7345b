"""A pack streamed from S3, as moto's server on the loopback plays it (`nox -s s3`)."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.shard_server import make_pack, shard_bytes
from visionkit.data import open_pack, open_stream
from visionkit.errors import DataError

pytest.importorskip("s3fs", reason="s3fs and moto are not among the tests' requirements: nox -s s3")
server = pytest.importorskip("moto.server", reason="moto is not among the tests' requirements: nox -s s3")
boto3 = pytest.importorskip("boto3", reason="moto is not among the tests' requirements: nox -s s3")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    running.stop()


def test_a_pack_in_a_bucket_is_streamed_and_what_is_wrong_with_it_named(bucket, tmp_path):
    packed = make_pack(tmp_path, count=24, records=4)
    for file in packed.iterdir():
        bucket.upload_file(str(file), "bucket", f"photos.pack/{file.name}")
    reader = open_stream(
        "s3://bucket/photos.pack", tmp_path / "cache", max_bytes=shard_bytes(packed, 5), window=2
    ).train
    local = open_pack(packed).train
    assert all(torch.equal(reader[index]["image"], local[index]["image"]) for index in range(24))
    samples = list(DataLoader(reader, batch_size=None, num_workers=2))
    assert len(samples) == 24
    assert all(torch.equal(one["image"], local[index]["image"]) for index, one in enumerate(samples))
    for address in ("s3://bucket/none", "s3://nobucket/photos.pack"):
        with pytest.raises(DataError, match=f"{address}/pack.json: Expected a file"):
            open_stream(address, tmp_path / "other", max_bytes=10**9)
    bucket.put_object(Bucket="bucket", Key="photos.pack/train-00001.tar", Body=bytes(10**7))
    reader.cache.discard(reader._shards[1])
    reader._open.clear()
    with pytest.raises(DataError, match="more come"):
        reader[4]
