"""The page in a real browser, opened as a file and from a server: the answers are those of the library."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="needs onnx (the extra export)")
pytest.importorskip("onnxruntime", reason="needs onnxruntime (the extra export)")

from tests.page.handmade import binary_segmenter, captioner, classifier, detector, segmenter
from tests.watch.browser import CHROMIUM, Browser
from visionkit.predict import load
from visionkit.predict.page import Runtime, page, write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (the Debian package chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory, ort: Runtime) -> Iterator[Browser]:
    with closing(Browser(tmp_path_factory.mktemp("profile"))) as opened:
        yield opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A smooth image with noise, wider than high, as a lossless file."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:90, 0:140]
    smooth = np.stack([x * 255 / 139, y * 255 / 89, 255 - x], axis=2)
    Image.fromarray((smooth * 0.9 + rng.integers(0, 25, (90, 140, 3))).astype(np.uint8)).save(
        tmp_path / "p.png"
    )
    return tmp_path / "p.png"


def open_page(browser: Browser, address: str, *, width: int = 1280) -> None:
    browser.problems.clear()
    browser.show(address, width=width)
    browser.wait(f"document.documentElement?.dataset.ready && location.href === '{address}'")


def answer_to(browser: Browser, image: Path) -> dict[str, Any]:
    """What the page answers; a class map comes as a list of rows."""
    browser.ask("answer = null; say('')")
    browser.choose("#file", image)
    browser.wait("answer !== null || document.querySelector('#status.bad')")
    assert browser.ask("document.getElementById('status').className") == "", browser.ask(
        "document.body.innerText"
    )
    found = json.loads(browser.ask("JSON.stringify({...answer, map: answer.map && [...answer.map.map]})"))
    if found.get("map"):
        found["map"] = np.array(found["map"]).reshape(found["size"])
    return found


def check_looks(browser: Browser) -> None:
    """Nothing is wider than the screen, every image has its text, and the console is empty."""
    for width in (1280, 400):
        for dark in (False, True):
            browser.size(width)
            browser.dark(dark)
            assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.querySelectorAll('img:not([alt])').length") == 0
    assert browser.ask("document.getElementById('canvas').getAttribute('aria-label').length") > 5
    assert browser.problems == []


def pixels_of(path: Path) -> np.ndarray:
    """`(3, H, W)` in [0, 1]."""
    return np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) / 255


def test_classes_from_a_file_and_all_ways_to_give_an_image(tmp_path: Path, ort, browser, photo) -> None:
    made = write_page(
        classifier(tmp_path / "model.onnx"), tmp_path / "page", runtime=ort, examples=[photo], title="Colour"
    )
    open_page(browser, made.index.as_uri())
    found = answer_to(browser, photo)
    assert (found["kind"], found["size"], found["input"]) == ("classification", [90, 140], [8, 8])
    assert found["box"] == [5, 30, 79, 79]
    means = pixels_of(photo)[:, 5:84, 30:109].mean((1, 2))
    np.testing.assert_allclose(found["probabilities"], means / means.sum(), atol=1e-3)
    assert browser.ask("document.querySelector('.headline').textContent").startswith(found["label"])
    assert "90 pixels: answered in" in browser.ask("document.getElementById('status').textContent")
    # An example, a paste and a drop are answered the same.
    same = browser.ask("JSON.stringify(answer.probabilities)")
    paste = "new ClipboardEvent('paste', {clipboardData: data, bubbles: true})"
    drop = "new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true})"
    give = "const data = new DataTransfer(); data.items.add(image.file); document.body.dispatchEvent"
    for act in (
        "document.querySelector('.example').click()",
        f"{give}({paste})",
        f"{give}({drop})",
    ):
        browser.ask(f"(() => {{ answer = null; {act} }})()")
        browser.wait(f"JSON.stringify(answer?.probabilities) === {json.dumps(same)}")
    # The keyboard reaches the choice of a file.
    browser.ask("document.activeElement.blur()")
    for _ in range(2):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.ask("document.activeElement.id") == "file"
    check_looks(browser)
    # What is no image is named, and the next image is answered.
    (tmp_path / "text.png").write_text("no image")
    browser.choose("#file", tmp_path / "text.png")
    browser.wait("document.querySelector('#status.bad')?.textContent.includes('text.png cannot be read')")
    assert answer_to(browser, photo)["label"] == found["label"]


def test_photos_are_turned_upright_and_transparent_pixels_are_white(tmp_path: Path, ort, browser) -> None:
    made = write_page(segmenter(tmp_path / "model.onnx"), tmp_path / "page", runtime=ort)
    open_page(browser, made.index.as_uri())
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16, 0] = pixels[:, 16:, 2] = 255  # red left, blue right, in whole blocks of a JPEG
    exif = Image.Exif()
    exif[0x0112] = 6  # the left side is the top
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    found = answer_to(browser, tmp_path / "turned.jpg")
    assert found["size"] == [32, 16]
    np.testing.assert_array_equal(found["map"], np.repeat([0, 2], 16)[:, None].repeat(16, 1))
    clear = Image.new("RGBA", (4, 4), (0, 255, 0, 0))
    clear.putpixel((0, 0), (0, 0, 255, 255))
    clear.save(tmp_path / "clear.png")
    found = answer_to(browser, tmp_path / "clear.png")
    assert found["map"].ravel().tolist() == [2] + [0] * 15  # white has its first maximum in red
    assert [(each["name"], each["pixels"]) for each in found["classes"]] == [("red", 15), ("blue", 1)]


def test_a_class_map_from_a_server_with_the_model_beside_it(
    tmp_path: Path, ort, browser, photo, monkeypatch
) -> None:
    monkeypatch.setattr(page, "EMBED_LIMIT", 100)
    made = write_page(segmenter(tmp_path / "model.onnx"), tmp_path / "page", runtime=ort)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None: ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(made.folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        open_page(browser, f"http://127.0.0.1:{server.server_port}/index.html")
        found = answer_to(browser, photo)
        np.testing.assert_array_equal(found["map"], pixels_of(photo).argmax(0))
        rows = "[...document.querySelectorAll('#result tbody tr')].map(row => row.innerText)"
        assert len(browser.ask(rows)) == len(found["classes"])
        asked = browser.ask("performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
        assert {host for host in asked if host} == {f"127.0.0.1:{server.server_port}"}
        check_looks(browser)
    finally:
        server.shutdown()
        server.server_close()
    browser.show(made.index.as_uri())
    browser.wait("document.querySelector('#status.bad')?.textContent.includes('python -m http.server')")


def test_boxes_in_the_frame_of_the_image_and_a_slider(tmp_path: Path, ort, browser, photo) -> None:
    made = write_page(detector(tmp_path / "model.onnx"), tmp_path / "page", runtime=ort)
    open_page(browser, made.index.as_uri())
    found = answer_to(browser, photo)
    np.testing.assert_allclose(
        found["boxes"], [[7, 18, 77, 54], [70, 9, 133, 81]], rtol=1e-5
    )  # 100 x 200 to 90 x 140
    np.testing.assert_allclose(found["scores"], [0.9, 0.4], rtol=1e-6)
    assert (found["labels"], found["names"]) == ([2, 0], ["blue", "red"])
    text = "document.getElementById('result').innerText"
    assert "1 blue" in browser.ask(text)
    assert "1 more with a lower score" in browser.ask(text)
    browser.ask("document.getElementById('score').focus()")
    for _ in range(3):  # 0.5 to 0.35
        for kind in ("keyDown", "keyUp"):
            key = {"key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37}
            browser.call("Input.dispatchKeyEvent", type=kind, **key)
    browser.wait(f"{text}.includes('1 blue, 1 red')")
    check_looks(browser)


def test_masks_of_objects_are_those_of_the_library(tmp_path: Path, ort, browser, photo) -> None:
    made = write_page(detector(tmp_path / "model.onnx", masks=True), tmp_path / "page", runtime=ort)
    open_page(browser, made.index.as_uri())
    answer_to(browser, photo)
    shown = browser.ask("answer.masks.map(m => ({...m, bits: [...m.bits]}))")
    expected = load(tmp_path / "model.onnx", device="cpu")(photo)[0].prediction.masks.numpy()
    assert len(shown) == len(expected) == 2
    for mask, whole in zip(shown, expected, strict=True):
        pasted = np.zeros((90, 140), bool)
        rows, columns = (
            slice(mask[at], mask[at] + mask[long]) for at, long in (("top", "height"), ("left", "width"))
        )
        pasted[rows, columns] = np.array(mask["bits"]).reshape(mask["height"], mask["width"])
        assert 300 < whole.sum() < pasted.size / 2
        assert (pasted != whole).mean() < 1e-3
    check_looks(browser)


@pytest.mark.parametrize("names", [["dark", "bright"], []])
def test_one_logit_gives_two_classes_of_two_colours(tmp_path: Path, ort, browser, photo, names) -> None:
    made = write_page(binary_segmenter(tmp_path / "model.onnx", names), tmp_path / "page", runtime=ort)
    open_page(browser, made.index.as_uri())
    found = answer_to(browser, photo)
    expected = load(tmp_path / "model.onnx", device="cpu")(photo)[0]
    mask = expected.prediction.mask.numpy()
    assert 0.1 < mask.mean() < 0.9
    assert (found["map"] != mask).mean() < 1e-3
    assert {each["name"] for each in found["classes"]} == {*(names or ["class 0", "class 1"])}
    swatches = "[...document.querySelectorAll('#result .swatch')].map(s => s.style.background)"
    assert len(set(browser.ask(swatches))) == 2
    check_looks(browser)


def test_a_sentence(tmp_path: Path, ort, browser, photo) -> None:
    made = write_page(captioner(tmp_path / "model.onnx", ["a", "red", "dog"]), tmp_path / "page", runtime=ort)
    open_page(browser, made.index.as_uri())
    found = answer_to(browser, photo)
    assert (found["caption"], found["log_prob"]) == ("a red dog", -1.5)
    assert browser.ask("document.querySelector('.headline').textContent") == "a red dog"
    check_looks(browser)
