"""The kinds of faulty COCO files, each one change of a sound document."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Break = Callable[[dict[str, Any]], Any]


def annotation(**fields: Any) -> Break:
    """Change annotation 1 (id 5); None takes a field away."""

    def change(content: dict[str, Any]) -> None:
        for name, value in fields.items():
            if value is None:
                del content["annotations"][1][name]
            else:
                content["annotations"][1][name] = value

    return change


def of(section: str, index: int, **fields: Any) -> Break:
    def change(content: dict[str, Any]) -> None:
        for name, value in fields.items():
            if value is None:
                del content[section][index][name]
            else:
                content[section][index][name] = value

    return change


def _replace(section: str, index: int, value: Any) -> Break:
    def change(content: dict[str, Any]) -> None:
        content[section][index] = value

    return change


def _top(name: str, value: Any) -> Break:
    def change(content: dict[str, Any]) -> Any:
        if value is None:
            del content[name]
            return None
        content[name] = value
        return None

    return change


def _text(change: Callable[[str], str]) -> Break:
    return lambda content: change(json.dumps(content))


ONE = r"annotations\[1\] \(id 5\)"
IMAGE = r"images\[1\] \(id 17\)"
NAN, INF = float("nan"), float("inf")
BIG = {"size": [1_000_000, 1_000_000], "counts": [1_000_000_000_000]}
# name: (what is broken, the record and field that are named, words of the text)
FAULTS: dict[str, tuple[Break, str, str | None, str]] = {
    "empty file": (_text(lambda t: ""), "the outermost", None, "an empty file"),
    "cut short": (_text(lambda t: t[: len(t) // 2]), r"annotations\[", None, "cut short"),
    "text": (_text(lambda t: "hello"), "the outermost", None, "'h' first"),
    "html": (_text(lambda t: "<html>"), "the outermost", None, "'<' first"),
    "a list": (_text(lambda t: "[]"), "the outermost", None, "a list"),
    "more behind": (_text(lambda t: t + "{}"), "the outermost", None, "nothing after"),
    "no comma": (_text(lambda t: t.replace("}, {", "} {", 1)), r"images\[0\]", None, "',' or ']'"),
    "nested": (_text(lambda t: '{"info": ' + "[" * 9000), "info", None, "plain JSON|JSON, but"),
    "long number": (_text(lambda t: '{"info": ' + "9" * 6000 + "}"), "info", None, "plain JSON"),
    "twice": (_text(lambda t: t[:-1] + ', "images": []}'), "the outermost", None, "there are two"),
    "no images": (_top("images", None), "", "images", "no 'images'"),
    "no annotations": (_top("annotations", None), "", "annotations", "no 'annotations'"),
    "no categories": (_top("categories", None), "", "categories", "no 'categories'"),
    "images no list": (_top("images", {"a": 1}), "", "images", "got a dict"),
    "annotations null": (_top("annotations", 3), "", "annotations", "got a int"),
    "categories text": (_top("categories", "cat"), "", "categories", "got a str"),
    "image no object": (_replace("images", 1, 5), r"images\[1\]", None, "an object, but got int"),
    "image without id": (of("images", 1, id=None), r"images\[1\]", "id", "it is missing"),
    "image without name": (of("images", 1, file_name=None), IMAGE, "file_name", "it is missing"),
    "image without width": (of("images", 1, width=None), IMAGE, "width", "it is missing"),
    "image without height": (of("images", 1, height=None), IMAGE, "height", "it is missing"),
    "image id text": (of("images", 1, id="17"), r"images\[1\]", "id", "whole number, but got '17'"),
    "image id float": (of("images", 1, id=17.5), r"images\[1\]", "id", "whole number, but got 17.5"),
    "image id twice": (of("images", 1, id=7), r"images \(id 7\)", "id", "once, but 7 comes 2"),
    "image name twice": (of("images", 1, file_name="0.png"), r"images \(id 17\)", "file_name", "once"),
    "width 0": (of("images", 1, width=0), IMAGE, "width", "at least 1"),
    "height negative": (of("images", 1, height=-30), IMAGE, "height", "at least 1"),
    "width text": (of("images", 1, width="50"), IMAGE, "width", "whole number"),
    "width NaN": (of("images", 1, width=NAN), IMAGE, "width", "whole number"),
    "size wrong": (of("images", 1, width=51), r"images \(id 17\)", "size", "51 x 30 pixels, .* 50 x 30"),
    "size turned": (of("images", 1, width=30, height=50), r"images \(id 17\)", "size", "EXIF turn"),
    "size huge": (of("images", 1, width=99999, height=9999), r"images \(id 17\)", "size", "megapixels"),
    "image missing": (of("images", 1, file_name="9.png"), r"\(id 17\), 9.png", "file_name", "none by"),
    "name empty": (of("images", 1, file_name=""), IMAGE, "file_name", "a file name"),
    "name number": (of("images", 1, file_name=17), IMAGE, "file_name", "a file name"),
    "name NUL": (of("images", 1, file_name="a\0.png"), IMAGE, "file_name", "a file name"),
    "name surrogate": (of("images", 1, file_name="\ud800.png"), IMAGE, "file_name", "surrogate"),
    "name above": (of("images", 1, file_name="../images/1.png"), IMAGE, "file_name", "leads out"),
    "name above, backslash": (of("images", 1, file_name="..\\1.png"), IMAGE, "file_name", "leads out"),
    "name absolute": (of("images", 1, file_name="/etc/passwd"), IMAGE, "file_name", "relative to"),
    "name drive": (of("images", 1, file_name="C:\\1.png"), IMAGE, "file_name", "relative to"),
    "name link": (of("images", 1, file_name="link.png"), "link.png", "file_name", "leads to"),
    "name folder": (of("images", 1, file_name="."), r"images \(id 17\), \.", "file_name", "a folder"),
    "name pipe": (of("images", 1, file_name="pipe.png"), "pipe.png", "file_name", "a pipe"),
    "name text file": (of("images", 1, file_name="note.png"), "note.png", "header", "starts with"),
    "category no object": (_replace("categories", 2, "emu"), r"categories\[2\]", None, "an object"),
    "category without id": (of("categories", 2, id=None), r"categories\[2\]", "id", "it is missing"),
    "category without name": (of("categories", 2, name=None), r"categories\[2\]", "name", "missing"),
    "category id text": (of("categories", 2, id="40"), r"categories\[2\]", "id", "whole number"),
    "category id twice": (of("categories", 2, id=2), r"categories \(id 2\)", "id", "comes 2 times"),
    "category name twice": (of("categories", 2, name="cat"), r"categories \(id 40\)", "name", "once"),
    "category name empty": (of("categories", 2, name=" "), r"categories\[2\]", "name", "a class name"),
    "no category": (lambda c: c.update(categories=[], annotations=[]), "", "categories", "at least one"),
    "annotation no object": (_replace("annotations", 1, [1]), r"annotations\[1\]", None, "an object"),
    "without id": (annotation(id=None), r"annotations\[1\]", "id", "1 annotations lack it"),
    "without image_id": (annotation(image_id=None), ONE, "image_id", "it is missing"),
    "without category_id": (annotation(category_id=None), ONE, "category_id", "it is missing"),
    "without bbox": (annotation(bbox=None), ONE, "bbox", "it is missing"),
    "without area": (annotation(area=None), ONE, "area", "1 annotations lack it"),
    "without iscrowd": (annotation(iscrowd=None), ONE, "iscrowd", "1 annotations lack it"),
    "id 0": (annotation(id=0), r"annotations\[1\] \(id 0\)", "id", "takes 0 for 'not matched'"),
    "id twice": (annotation(id=3), r"annotations \(id 3\)", "id", "3 comes 2 times"),
    "id text": (annotation(id="5"), r"annotations\[1\]", "id", "whole number, but got '5'"),
    "id huge": (annotation(id=10**30), r"annotations\[1\]", "id", "at most"),
    "image_id text": (annotation(image_id="7"), ONE, "image_id", "whole number, but got '7'"),
    "image_id unknown": (annotation(image_id=8), ONE, "image_id", "no image with id 8"),
    "category unknown": (annotation(category_id=3), ONE, "category_id", "none with id 3"),
    "category text": (annotation(category_id="cat"), ONE, "category_id", "whole number"),
    "box of three": (annotation(bbox=[1, 2, 3]), ONE, "bbox", "x, y, width, height"),
    "box of five": (annotation(bbox=[1, 2, 3, 4, 5]), ONE, "bbox", "x, y, width, height"),
    "box of text": (annotation(bbox=["1", "2", "3", "4"]), ONE, "bbox", "four numbers"),
    "box text": (annotation(bbox="1234"), ONE, "bbox", "x, y, width, height"),
    "box with null": (annotation(bbox=[1, None, 3, 4]), ONE, "bbox", "four numbers"),
    "box null": (lambda c: c["annotations"][1].update(bbox=None), ONE, "bbox", "x, y, width, height"),
    "box nested": (annotation(bbox=[[1, 2, 3, 4]]), ONE, "bbox", "x, y, width, height"),
    "box NaN": (annotation(bbox=[1, NAN, 3, 4]), ONE, "bbox", "finite"),
    "box infinite": (annotation(bbox=[1, 2, INF, 4]), ONE, "bbox", "finite"),
    "box overflow": (annotation(bbox=[1e308, 2, 1e308, 4]), ONE, "bbox", "finite"),
    "box huge int": (annotation(bbox=[10**400, 2, 3, 4]), ONE, "bbox", "four numbers"),
    "box negative": (annotation(bbox=[9, 9, -5, 5]), ONE, "bbox", "with an area.* -5"),
    "box flat": (annotation(bbox=[9, 9, 5, 0]), ONE, "bbox", "with an area"),
    "box outside": (annotation(bbox=[900, 9, 5, 5]), ONE, "bbox", "lies outside"),
    "box beyond": (annotation(bbox=[50, 9, 30, 5]), ONE, "bbox", "reaches beyond"),
    "box above": (annotation(bbox=[5, -30, 5, 35]), ONE, "bbox", "reaches beyond"),
    "area negative": (annotation(area=-4), ONE, "area", "from 0 up, but got -4"),
    "area NaN": (annotation(area=NAN), ONE, "area", "from 0 up, but got nan"),
    "area text": (annotation(area="400"), ONE, "area", "from 0 up"),
    "iscrowd 2": (annotation(iscrowd=2), ONE, "iscrowd", "0 or 1, but got 2"),
    "iscrowd -1": (annotation(iscrowd=-1), ONE, "iscrowd", "0 or 1, but got -1"),
    "iscrowd text": (annotation(iscrowd="no"), ONE, "iscrowd", "0 or 1"),
    "outline text": (annotation(segmentation="x"), ONE, "segmentation", "polygons .* but got a str"),
    "polygon flat": (annotation(segmentation=[1, 2, 3, 4, 5, 6]), ONE, "segmentation", "list of numbers"),
    "polygon short": (annotation(segmentation=[[1, 2, 3, 4]]), ONE, "segmentation", "three points"),
    "polygon odd": (annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), ONE, "segmentation", "got 7"),
    "polygon text": (annotation(segmentation=[list("123456")]), ONE, "segmentation", "numbers in a polygon"),
    "polygon NaN": (annotation(segmentation=[[1, 2, NAN, 4, 5, 6]]), ONE, "segmentation", "finite"),
    "polygon far": (annotation(segmentation=[[1, 2, 1e9, 4, 5, 6]]), ONE, "segmentation", "in the image"),
    "polygon long": (
        annotation(segmentation=[[0, 0, 60, 40] * 100_000]), ONE, "segmentation", "can be filled"
    ),
    "runs huge": (annotation(segmentation=BIG), ONE, "segmentation", "size|counts"),
    "runs of another size": (
        annotation(segmentation={"size": [4, 5], "counts": [20]}), ONE, "segmentation", r"of size \[40, 60\]"
    ),
    "runs too short": (
        annotation(segmentation={"size": [40, 60], "counts": [5]}), ONE, "segmentation", "add up to"
    ),
    "runs negative": (
        annotation(segmentation={"size": [40, 60], "counts": [-1, 2401]}), ONE, "segmentation", "got -1"
    ),
    "runs without size": (annotation(segmentation={"counts": [1]}), ONE, "segmentation", "with size"),
    "runs without counts": (annotation(segmentation={"size": [40, 60]}), ONE, "segmentation", "as a list"),
    "runs of odd characters": (
        annotation(segmentation={"size": [40, 60], "counts": "~ä"}), ONE, "segmentation", "characters"
    ),
    "runs cut short": (
        annotation(segmentation={"size": [40, 60], "counts": "oo"}), ONE, "segmentation", "cut short"
    ),
    "runs too long": (
        annotation(segmentation={"size": [40, 60], "counts": "ooooooooo0"}), ONE, "segmentation", "32 bits"
    ),
}  # fmt: skip
# What this library does not mind, and names for the sake of COCO's own evaluation.
HARMLESS = {
    *("without id", "without area", "without iscrowd", "id 0", "id twice", "id text", "id huge"),
    *("area negative", "area NaN", "area text", "box of text", "image id text", "image_id text"),
    *("category id text", "width text"),
}


def write_large(path: Path, annotations: int) -> None:
    """Write a sound file of so many annotations with outlines, 7 an image."""
    draw = random.Random(0)
    with path.open("w") as out:
        images = annotations // 7
        rows = (
            json.dumps({"id": i, "file_name": f"{i:012}.jpg", "width": 640, "height": 480, "license": 3})
            for i in range(images)
        )
        out.write('{"info": {}, "images": [' + ", ".join(rows) + '], "annotations": [')
        for i in range(annotations):
            x, y = draw.uniform(0, 500), draw.uniform(0, 400)
            outline = [round(draw.uniform(0, 400), 2) for _ in range(46)]
            row = {"segmentation": [outline], "area": 900.5, "iscrowd": 0, "image_id": i % images}
            row |= {"bbox": [round(x, 2), round(y, 2), 60.5, 50.25], "category_id": i % 80 + 1, "id": i + 1}
            out.write((", " if i else "") + json.dumps(row))
        names = [{"id": i + 1, "name": f"class {i}", "supercategory": "x"} for i in range(80)]
        out.write(f'], "categories": {json.dumps(names)}}}')
