"""The page's resize in JavaScript gives the library's pixels, to the last bit; run by node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from visionkit.data.transforms.saved import transform_from

NODE = shutil.which("node")
RULES = [
    {"name": "CenterCrop", "size": 64, "fraction": 0.875},
    {"name": "CenterCrop", "size": 96, "fraction": 1.0},
    {"name": "Resize", "size": 50, "max_size": 70},
    {"name": "Resize", "size": [37, 91], "max_size": 0},
    {"name": "DetectionEval", "resize": {"name": "Resize", "size": 80, "max_size": 133}},
    {"name": "Native"},
]
SIZES = [(120, 180), (32, 32), (61, 47), (301, 27), (2, 3), (96, 96), (75, 200)]
CODE = """
const fs = require("fs"), vm = require("vm"), [script, jobs] = process.argv.slice(1);
vm.runInThisContext(fs.readFileSync(script, "utf8"));
const out = [];
for (const [file, [height, width], rule] of JSON.parse(fs.readFileSync(jobs))) {
  const { box, size } = geometry(rule, height, width);
  const planes = cropResize(new Uint8ClampedArray(fs.readFileSync(file)), width, box, size);
  out.push([size, Buffer.from(planes).toString("base64")]);
}
process.stdout.write(JSON.stringify(out));
"""


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_every_rule_gives_the_same_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    jobs, expected = [], []
    for height, width in SIZES:
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[: height // 4] = 255
        pixels[height // 4 : height // 2] //= 128
        file = tmp_path / f"{height}x{width}"
        opaque = np.full((height, width, 1), 255, np.uint8)
        file.write_bytes(np.concatenate([pixels, opaque], axis=2).tobytes())
        for rule in RULES:
            sample = {"image": torch.from_numpy(pixels).permute(2, 0, 1)}
            expected.append(transform_from(rule)(sample, torch.Generator())["image"].contiguous().numpy())
            jobs.append([str(file), [height, width], rule])
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = files("visionkit.predict.page").joinpath("static", "preprocess.js")
    command = [NODE, "-e", CODE, str(script), str(tmp_path / "jobs.json")]
    got = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for (_, size, rule), right, (shape, content) in zip(jobs, expected, got, strict=True):
        planes = np.frombuffer(base64.b64decode(content), np.uint8).reshape(3, *shape)
        np.testing.assert_array_equal(planes, right, err_msg=f"{size} by {rule}")
