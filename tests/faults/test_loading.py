"""Nothing that is loaded runs: every public function that takes a path, given every hostile file."""

from __future__ import annotations

import http.server
import threading

import pytest

from tests.faults.hostile import payloads
from tests.faults.loaders import NO_LOADERS, attempts, entries, missing_values
from visionkit.errors import InputError

URLS = ("http://127.0.0.1:{port}/x.ckpt", "file:///etc/passwd", "simplecache::http://127.0.0.1:{port}/x.ckpt")


class Counting(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Counting.asked += 1
        self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def port():
    server = http.server.HTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Counting.asked = 0
    yield server.server_address[1]
    server.shutdown()


def test_every_public_function_with_a_path_can_be_tried():
    found = entries()
    assert len(found) >= 45
    lacking = {name: values for name, entry in found.items() if (values := missing_values(entry))}
    assert lacking == {}, "give values for these parameters in loaders.py, or say why they load nothing"
    assert not set(found) & set(NO_LOADERS)
    assert set(NO_LOADERS) <= set(entries(())), "these are gone, or take no path any more"


@pytest.mark.parametrize("name", ["visionkit.run.command_line:parse", "visionkit.run.sweep.launch:launch"])
def test_a_command_line_is_given_the_file_where_it_reads_one(tmp_path, capsys, name):
    """An answer about the file's content shows that it was opened, and not refused as a flag."""
    (tmp_path / "x.yaml").write_text("out: [not closed")
    first, *_ = attempts(entries()[name], tmp_path / "x.yaml", tmp_path)
    with pytest.raises((InputError, SystemExit)) as caught:
        first()
    assert "not a YAML file" in str(caught.value) + capsys.readouterr().err


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.faults)])
@pytest.mark.dist
@pytest.mark.check(
    "R31", "every public loading function x every hostile file: none executed, nothing fetched"
)
def test_nothing_is_executed(zygote, tmp_path, figure, port, every):
    marker = tmp_path / "executed"
    env = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "VISIONKIT_MARKER": str(marker)}
    names = sorted(entries())
    urls = [url.format(port=port) for url in URLS]
    told = []
    for start in range(4):  # four children: what one of them leaves behind does not hide what another does
        child = zygote.start("load_hostile", str(tmp_path), names[start::4], urls, every, env=env)
        assert child.wait(280) == 0, child.said()[-3000:]
        told.append(child.result())
    tried = sum(one["tried"] for one in told)
    ran = [name for one in told for name in one["ran"]]
    assert ran == []
    assert not marker.exists()
    assert Counting.asked == 0, "nothing is fetched"
    assert [one["left"] for one in told] == [[]] * 4, "no folder by the name of an address"
    grown = max(one["grown"] for one in told)
    assert grown < 600, f"{grown} MB"
    assert tried >= len(names) * len(payloads(marker)) // every
    figure(tried - len(ran), tried, f"{len(names)} functions; at most {grown:.0f} MB more memory")


def test_the_hostile_files_do_execute_where_nothing_guards(tmp_path):
    import pickle
    import shutil

    import torch

    marker = tmp_path / "executed"
    files, ran = payloads(marker), 0
    for name in ("pickle", "pickle, protocol 2", "torch zip", "torch zip, state dict", "torch legacy"):
        path = tmp_path / "x"
        path.write_bytes(files[name])
        if name.startswith("pickle"):
            pickle.loads(files[name])
        else:
            torch.load(path, weights_only=False)
        assert marker.exists(), name
        shutil.rmtree(marker)
        ran += 1
    assert ran == 5
