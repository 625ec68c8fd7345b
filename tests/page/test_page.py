"""What `visionkit page` writes, refuses and leaves behind, without a browser."""

from __future__ import annotations

import base64
import errno
import hashlib
import http.server
import json
import re
import tarfile
import threading
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("onnx", reason="needs onnx (the extra export)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (the extra export)")

from tests.page.handmade import classifier, describe, fake_package
from visionkit import cli
from visionkit.errors import DataError, InputError, RunError
from visionkit.predict.page import download_runtime, find_runtime, page, write_page
from visionkit.predict.page.about import make_about


def archive(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as out:
        out.add(folder, "package")
    return path


def read_scripts(folder: Path) -> dict[str, bytes]:
    """The files inside the scripts of a page."""
    pieces: dict[str, list[bytes]] = {}
    text = (folder / "index.html").read_text()
    for script in re.search(r'data-scripts="([^"]*)"', text)[1].split():
        for line in (folder / script).read_text().splitlines():
            name, index, content = json.loads(f"[{re.fullmatch(r'visionkitPart[(](.*)[)];', line)[1]}]")
            assert index == len(pieces.setdefault(name, []))
            pieces[name].append(base64.b64decode(content))
    return {name: b"".join(each) for name, each in pieces.items()}


def test_the_folder_holds_all_that_a_browser_needs(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(page, "_PIECE", 300)
    model = classifier(tmp_path / "model.onnx")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a photo & more.png")
    package = archive(fake_package(tmp_path / "package"), tmp_path / "ort.tgz")
    command = [
        "page",
        str(model),
        str(tmp_path / "out"),
        "--runtime",
        str(package),
        "--title",
        "Which <colour>?",
    ]
    assert cli.main([*command, "--examples", str(tmp_path / "a photo & more.png")]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "out" / "index.html") in said
    assert "python -m http.server --directory" in said
    files = read_scripts(tmp_path / "out")
    assert files["model.onnx"] == model.read_bytes()
    assert files["ort.wasm"] == b"\0asm"
    assert files["ort.mjs"] == b"export {};"
    assert files["examples/a photo & more.png"] == (tmp_path / "a photo & more.png").read_bytes()
    about = json.loads(files["about.json"])
    assert about["class_names"] == ["red", "green", "blue"]
    assert about["examples"] == ["a photo & more.png"]
    text = (tmp_path / "out" / "index.html").read_text()
    assert "Which &lt;colour&gt;?" in text
    assert "some &lt;b&gt;data&lt;/b&gt;" in text
    assert "timm net a1, trained on X" in text
    assert "default-src 'none'" in text
    scripts = [path.read_text() for path in (tmp_path / "out").rglob("*.js")]
    for content in [text, *scripts, (tmp_path / "out" / "page.css").read_text(), files["worker.js"].decode()]:
        assert not re.search(r"https?://(?!localhost)", content)
        assert "innerHTML" not in content
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.onnx", "a photo & more.png", "package", "ort.tgz", "out",
    }  # fmt: skip


def test_a_large_model_lies_beside_the_page_and_needs_a_server(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(page, "EMBED_LIMIT", 100)
    model = classifier(tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()  # an empty folder is taken
    (tmp_path / f"out.{2**22 + 1}.visionkit-part" / "data").mkdir(parents=True)  # of a killed process
    package = fake_package(tmp_path / "package")
    command = ["page", str(model), str(tmp_path / "out"), "--runtime", str(package)]
    assert cli.main(command) == 0
    assert "too large to open the page as a file" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.onnx").read_bytes() == model.read_bytes()
    assert "model.onnx" not in read_scripts(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "out", "package"]
    # A page is replaced when asked, and nothing of the old one stays.
    monkeypatch.setattr(page, "EMBED_LIMIT", 10**6)
    assert cli.main(command) == 2
    assert "Replace it with --overwrite" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite"]) == 0
    assert read_scripts(tmp_path / "out")["model.onnx"] == model.read_bytes()
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_the_runtime_is_found_where_npm_leaves_it_and_nowhere_else(tmp_path: Path) -> None:
    modules = tmp_path / "project" / "node_modules"
    fake_package(modules / "onnxruntime-web")
    for place in (tmp_path / "project", modules, modules / "onnxruntime-web"):
        assert find_runtime(place).version == "1.30.0"
    with pytest.raises(InputError, match="npm pack onnxruntime-web@"):
        find_runtime(tmp_path / "gone")
    with pytest.raises(InputError, match="it is not there"):
        find_runtime(tmp_path)
    with pytest.raises(InputError, match=r"1\.x in .*, but it is 2\.0\.0"):
        find_runtime(fake_package(tmp_path / "newer", version="2.0.0"))
    (modules / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(DataError, match="not the whole package"):
        find_runtime(modules)
    with pytest.raises(DataError, match="is no package of"):
        find_runtime(archive(modules / "onnxruntime-web", tmp_path / "half.tgz"))
    with pytest.raises(InputError, match="but it is another"):
        find_runtime(archive(fake_package(tmp_path / "other", name="other"), tmp_path / "other.tgz"))
    damaged = archive(fake_package(tmp_path / "whole"), tmp_path / "whole.tgz")
    damaged.write_bytes(damaged.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"no intact \.tgz"):
        find_runtime(damaged)


def test_a_download_is_checked_and_only_made_when_asked(tmp_path: Path, capsys, monkeypatch) -> None:
    content = archive(fake_package(tmp_path / "package"), tmp_path / "ort.tgz").read_bytes()

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/ort.tgz" else 404)
            self.end_headers()
            self.wfile.write(content if self.path == "/ort.tgz" else b"")

        def log_message(self, *args) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/ort.tgz"
    right = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    try:
        assert download_runtime(address=address, integrity=right).wasm == b"\0asm"
        with pytest.raises(RunError, match="nothing of it was used"):
            download_runtime(address=address)
        with pytest.raises(RunError, match="cannot be fetched"):
            download_runtime(address=f"{address}x", integrity=right)
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(RunError, match="npm pack"):
        download_runtime(address=address, integrity=right, timeout=5)
    model = str(classifier(tmp_path / "model.onnx"))
    assert cli.main(["page", model, str(tmp_path / "out")]) == 2
    assert "--download to fetch and check it now (33 MB)" in capsys.readouterr().err
    assert cli.main(["page", model, str(tmp_path / "out"), "--download", "--runtime", "x"]) == 2
    assert "but got both" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_a_page_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    runtime = find_runtime(fake_package(tmp_path / "package"))
    model = classifier(tmp_path / "model.onnx")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "b" / "a.png")
    (tmp_path / "text.jpg").write_text("no image")
    Image.new("RGB", (9, 9)).save(tmp_path / "a.tiff")
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "out"

    def refused(match: str, source: Path = model, folder: Path = out, error=InputError, **more) -> None:
        with pytest.raises(error, match=match):
            write_page(source, folder, runtime=runtime, **more)
        assert sorted(tmp_path.rglob("*")) == before

    refused("there is none", tmp_path / "gone.onnx")
    refused("holds other files", folder=tmp_path / "b", overwrite=True)
    refused("is a file or a link", folder=tmp_path / "a.png")
    refused("two are called a.png", examples=[tmp_path / "a.png", tmp_path / "b" / "a.png"])
    refused("text.jpg", error=DataError, examples=[tmp_path / "text.jpg"])
    refused("that browsers read", examples=[tmp_path / "a.tiff"])
    refused("noise.onnx", tmp_path / "noise.onnx")
    plain = classifier(tmp_path / "plain.onnx", metadata=False)
    wide = classifier(tmp_path / "wide.onnx", input={"name": "images", "dtype": "float32", "channels": 4})
    before = sorted(tmp_path.rglob("*"))
    refused("visionkit export", plain, error=DataError)
    refused("takes 4", wide)

    def full(*args, **settings) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(page, "_write_scripts", full)
    refused("No space left on device.*Free some space", error=RunError)


def test_the_rows_say_what_the_model_is() -> None:
    said = describe("detection", [], preprocess={"name": "Native"})

    def rows(**more) -> dict[str, str]:
        return dict(make_about(said | more, size=12_300_000)["rows"])

    assert rows()["Their licence"] == "mit"
    assert rows()["Model"] == "ONNX opset 18, 12.3 MB, visionkit 0.1.0"
    assert rows(weights={})["Started from"] == "random weights"
    sees = {
        "the whole image at its own size": {"name": "Native"},
        "the centre square, resized to 8 x 8 pixels": {"name": "CenterCrop", "size": 8, "fraction": 1.0},
        "the whole image, resized to 9 x 8 pixels": {"name": "Resize", "size": [8, 9], "max_size": 0},
        "the whole image, its short side resized to 8 pixels, the long one at most 12": {
            "name": "DetectionEval", "resize": {"name": "Resize", "size": 8, "max_size": 12},
        },
    }  # fmt: skip
    for text, preprocess in sees.items():
        assert rows(preprocess=preprocess)["The network sees"] == text
    for kind in ("poems", "embedding"):
        with pytest.raises(InputError, match=f"it is of '{kind}'"):
            rows(kind=kind)
    about = make_about(said | {"class_names": [f"c{i}" for i in range(1500)]}, size=1)
    assert "and 1300 more" in dict(about["rows"])["Classes"]
    assert len(about["colors"]) == 1000
