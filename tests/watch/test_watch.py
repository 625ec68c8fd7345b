"""The page of `visionkit watch`: folders read as they grow, a server that only reads, a real browser."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.run.make_runs import make_run
from tests.watch.browser import CHROMIUM, Browser
from visionkit import cli
from visionkit.files import write_atomic
from visionkit.watch import WatchServer
from visionkit.watch.metrics_file import MetricsFile
from visionkit.watch.run_folder import RunFolder, all_runs

HEADER = "step,epoch,images,split,name,value\r\n"


@contextmanager
def serving(*folders: Path):
    server = WatchServer(folders)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def ask(
    server: WatchServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, dict]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def state(server: WatchServer, query: str = "") -> list[dict]:
    status, content, _ = ask(server, f"/api/state?{query}")
    assert status == 200
    return json.loads(content)["runs"]


def hold_lock(folder: Path, pid: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.lock").write_text(json.dumps({"pid": pid, "host": socket.gethostname()}))


def begin(folder: Path, init: str) -> None:
    """What a run writes before its first update."""
    hold_lock(folder, os.getpid())
    (folder / "config.yaml").write_text(f"init: {init}\nseeds: [0]\nfractions: [1.0]\nbackbone: some/net\n")
    (folder / "plan.json").write_text('{"images": 400, "epochs": 4, "monitor": ["val/top1", "max"]}')


def test_a_table_is_read_on_while_it_grows_is_torn_and_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    table = MetricsFile(path)
    assert not table.update()
    path.write_text(f"{HEADER}1,0,32,train,loss,2.5\r\n2,0,64,train,lo")
    assert table.update()
    assert table.rows == [("train/loss", 32, 2.5)]
    assert not table.update()
    with path.open("a") as file:
        file.write("ss,2.25\r\nbroken\r\n3,1,96,train,loss,nan\r\n")
    assert table.update()
    assert table.rows == [("train/loss", 32, 2.5), ("train/loss", 64, 2.25)]
    assert (table.unreadable, table.images, table.epoch, table.generation) == (1, 96, 1, 0)
    # A resumed run renames a new table into place, which may be longer than what was read.
    rewound = HEADER + "1,0,32,train,loss,2.5\r\n" + "2,0,64,val,top1,0.5\r\n" * 9
    write_atomic(path, lambda part: part.write_text(rewound))
    assert table.update()
    assert table.generation == 1
    assert table.rows[0] == ("train/loss", 32, 2.5)
    assert len(table.rows) == 10


def test_states_progress_and_what_is_new(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "x"
    make_run(out, "pretrained", predictions=4)
    begin(out / "scratch-f1-s0", "scratch")
    hold_lock(out / "scratch-f1-s1", os.getpid())
    begin(out / "scratch-f1-s2", "scratch")
    (out / "scratch-f1-s2" / "error.txt").write_text("RunError: the loss is not finite.\n")
    begin(out / "scratch-f1-s3", "scratch")
    hold_lock(out / "scratch-f1-s3", 2**22 + 1)
    for given in ([tmp_path / "runs"], [out], [out / "scratch-f1-s0", out]):
        assert len(all_runs([folder.resolve() for folder in given])) == 5, given
    run = RunFolder(out / "scratch-f1-s0")
    table = run.folder / "metrics.csv"
    table.write_text(HEADER + "1,0,100,train,loss,2\r\n")
    assert run.describe()["left"] is None
    os.utime(table, (time.time() - 10, time.time() - 10))
    run = RunFolder(out / "scratch-f1-s0")
    run.describe()
    with table.open("a") as file:
        file.write("2,0,200,train,loss,1\r\n2,0,200,val,top1,0.5\r\n")
    shown = run.describe()
    assert (shown["state"], shown["images"], shown["planned"], shown["init"]) == (
        "running",
        200,
        400,
        "scratch",
    )
    assert 5 < shown["speed"] < 15
    assert 10 < shown["left"] < 40
    new = run.curves(0, 1)
    assert (new["begin"], new["names"], len(new["rows"])) == (1, ["train/loss", "val/top1"], 2)
    assert run.curves(7, 1)["begin"] == 0
    with serving(tmp_path / "runs") as server:
        listing = {each["name"]: each for each in state(server)}
        states = {name: each["state"] for name, each in listing.items()}
        assert states == {
            "pretrained-f1-s0": "finished",
            "scratch-f1-s0": "running",
            "scratch-f1-s1": "waiting",
            "scratch-f1-s2": "failed",
            "scratch-f1-s3": "stopped",
        }
        assert "not finite" in listing["scratch-f1-s2"]["why"]
        assert listing["scratch-f1-s1"]["init"] == "scratch"
        key = listing["pretrained-f1-s0"]["key"]
        count = len(listing["pretrained-f1-s0"]["curves"]["rows"])
        assert count > 5
        again = {each["key"]: each for each in state(server, f"known={key}:0:{count}")}
        assert again[key]["curves"]["rows"] == []


def test_runs_of_several_folders_at_once(tmp_path: Path) -> None:
    """Runs of one name are told apart; each has its own rows, images and predictions; runs come and go."""
    tops = [tmp_path / "a", tmp_path / "b"]
    for number, top in enumerate(tops):
        run = top / "scratch-f1-s0"
        begin(run, "scratch")
        rows = "".join(f"{step},0,{100 * step},train,loss,{number}.5\r\n" for step in range(1, 4 + number))
        (run / "metrics.csv").write_text(HEADER + rows)
        (run / "figures" / "watch").mkdir(parents=True)
        Image.new("RGB", (8, 8), ("red", "blue")[number]).save(run / "figures" / "watch" / "0.png")
        (run / "predictions").mkdir()
        line = {"id": top.name, "image": "figures/val/000.png"}
        (run / "predictions" / "val.jsonl").write_text(json.dumps(line) + "\n")
    with serving(*tops, tops[1]) as server:
        first = state(server)
        keys = [each["key"] for each in first]
        assert [Path(each["folder"]).parent.name for each in first] == ["a", "b"]
        assert len(set(keys)) == 2
        assert [each["name"] for each in first] == ["a/scratch-f1-s0", "b/scratch-f1-s0"]
        assert [len(each["curves"]["rows"]) for each in first] == [3, 4]
        with (tops[1] / "scratch-f1-s0" / "metrics.csv").open("a") as file:
            file.write("5,0,500,train,loss,9\r\n")
        query = f"known={keys[0]}:0:3&known={keys[1]}:0:4"
        with ThreadPoolExecutor(8) as pool:  # pages in several browsers
            shown = list(pool.map(lambda _: state(server, query), range(16)))
        assert all(each == shown[0] for each in shown)
        assert [each["curves"]["rows"] for each in shown[0]] == [[], [[0, 500, 9.0]]]
        images = [ask(server, f"/file/{key}/figures/watch/0.png")[1] for key in keys]
        assert images == [(top / "scratch-f1-s0/figures/watch/0.png").read_bytes() for top in tops]
        assert images[0] != images[1]
        told = [json.loads(ask(server, f"/api/predictions/{key}")[1]) for key in keys]
        assert [[row["id"] for row in rows] for rows in told] == [["a"], ["b"]]
        shutil.rmtree(tops[0] / "scratch-f1-s0")
        begin(tops[0] / "pretrained-f1-s0", "pretrained")
        assert [each["name"] for each in state(server)] == ["pretrained-f1-s0", "scratch-f1-s0"]
        assert ask(server, f"/file/{keys[0]}/figures/watch/0.png")[0] == 404
        assert ask(server, f"/file/{keys[1]}/figures/watch/0.png")[0] == 200


@pytest.mark.parametrize(
    ("config", "plan"),
    [("seeds: 3\nfractions: {a: b}\n", '{"images": "many"}'), ("when: 2026-13-45\n", "[" * 5000)],
)
def test_settings_of_other_kinds_are_passed_over(config, plan, tmp_path: Path) -> None:
    begin(tmp_path / "scratch-f1-s0", "scratch")
    (tmp_path / "scratch-f1-s0" / "config.yaml").write_text(config)
    (tmp_path / "scratch-f1-s0" / "plan.json").write_text(plan)
    shown = RunFolder(tmp_path / "scratch-f1-s0").describe()
    assert (shown["state"], shown["seed"], shown["fraction"], shown["planned"]) == (
        "running", None, None, None,
    )  # fmt: skip


def test_the_server_reads_only_for_this_machine_and_only_what_it_shows(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "pretrained-f1-s0"
    begin(run, "pretrained")
    (run / "figures" / "watch").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(run / "figures" / "watch" / "0.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (run / "figures" / "val-worst.png").symlink_to(tmp_path / "secret.png")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with serving(tmp_path / "runs") as server:
        key = state(server)[0]["key"]
        for path in ("/", "/watch.js", "/curves.js", "/elements.js", "/watch.css"):
            status, content, headers = ask(server, path)
            assert status == 200
            assert len(content) > 500
            assert b"http://" not in content.replace(b"http://www.w3.org/2000/svg", b"")
            assert b"https://" not in content
            assert "default-src 'none'" in headers["Content-Security-Policy"]
        status, content, headers = ask(server, f"/file/{key}/figures/watch/0.png?v=1")
        assert status == 200
        assert content[:4] == b"\x89PNG"
        assert ask(server, f"/file/{key}/figures/watch/0.png", "HEAD")[:2] == (200, b"")
        for path in (
            f"/file/{key}/figures/val-worst.png",  # a link that leads out
            f"/file/{key}/figures/../config.yaml",
            f"/file/{key}/config.yaml",
            f"/file/{key}/checkpoints/last.ckpt",
            f"/file/{key}/figures/watch/%2e%2e/0.png",
            f"/file/{'0' * 12}/figures/watch/0.png",
            "/../../etc/passwd",
            "//etc/passwd",
            "/server.py",
            f"/layers/{key}/1-0.png",
        ):
            assert ask(server, path)[0] == 404, path
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            status, _, headers = ask(server, "/api/state", method)
            assert (status, headers["Allow"]) == (405, "GET, HEAD")
        for host in (
            "evil.example",
            f"evil.example:{server.port}",
            "127.0.0.1",
            f"127.0.0.1:{server.port}.evil.example",
        ):
            assert ask(server, "/api/state", host=host)[0] == 403, host
        assert ask(server, "/api/state", host=f"localhost:{server.port}")[0] == 200
        # The port is taken now: the command says so.
        assert cli.main(["watch", str(tmp_path / "runs"), "--port", str(server.port), "--no_browser"]) == 2
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before


def test_the_command_names_what_is_wrong_and_ends_quietly(tmp_path: Path, capsys) -> None:
    assert cli.main(["watch", str(tmp_path / "gone"), "--no_browser"]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["watch", str(tmp_path / "file")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert cli.main(["watch", str(tmp_path), "--port", "70000"]) == 2
    command = [sys.executable, "-m", "visionkit.cli", "watch", str(tmp_path), "--no_browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "no run yet" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, wrong = process.communicate(timeout=60)
    assert (process.returncode, wrong.strip()) == (130, "The page has ended.")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (the Debian package chromium)")
def test_the_page_in_a_browser_while_runs_go_on(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    with serving(out) as server, closing(Browser(tmp_path / "profile")) as browser:
        browser.show(server.address)
        browser.wait(
            "document.documentElement?.dataset.ready && document.body.innerText.includes('No run yet')"
        )
        make_run(out, "pretrained", predictions=4)
        run = out / "scratch-f1-s0"
        begin(run, "scratch")
        (run / "metrics.csv").write_text(HEADER + "1,0,100,train,loss,2\r\n1,0,100,val,top1,0.25\r\n")
        browser.wait("document.querySelectorAll('#curves figure').length >= 2")
        figure = (
            "[...document.querySelectorAll('#curves figure')].find(f => f.innerText.startsWith('val/top1'))"
        )
        browser.wait(f"{figure}.querySelector('.readout').textContent.includes('scratch 0.25 at 100')")
        with (run / "metrics.csv").open("a") as file:
            file.write("2,0,200,train,loss,1\r\n2,0,200,val,top1,0.75\r\n3,0,3")
        browser.wait(f"{figure}.querySelector('.readout').textContent.includes('scratch 0.75 at 200')")
        # The keyboard reads a curve, and the table has what the figure shows.
        browser.ask(f"{figure}.querySelector('svg').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Home", code="Home")
        browser.wait(f"{figure}.querySelector('.readout').textContent.includes('scratch 0.25 at 100')")
        browser.ask(f"{figure}.querySelector('details').open = true")
        browser.wait(f"{figure}.querySelector('table')?.innerText.includes('0.75')")
        for width in (1280, 400):
            for dark in (False, True):
                browser.size(width)
                browser.dark(dark)
                assert browser.ask("document.documentElement.scrollWidth") <= width
        assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
        assert browser.ask("document.querySelectorAll('img:not([alt])').length") == 0
        assert browser.problems == []
        asked = browser.ask("performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
        assert set(asked) == {f"127.0.0.1:{server.port}"}
