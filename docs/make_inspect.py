"""Make the figures of docs/how-to/see-what-a-network-does.md.

Of photographs that scikit-learn and scikit-image ship (neither is imported), through packaged weights:
`python docs/make_inspect.py [NAME...]`.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageFilter

from visionkit.cli import main

STATIC = Path(__file__).parent / "_static"
NET, LITE, LITE2 = (
    f"packaged/{name}" for name in ("squeezenet1_1", "efficientnet_lite0", "efficientnet_lite2")
)
STYLE_LAYERS = ["--layers", "features.1", "features.3", "features.6", "features.9"]
STYLE = ["--image", "{china}", "--style", "{ihc}", "--size", "320", *STYLE_LAYERS]
SMALL = ["--steps", "128", "--size", "160"]
INVERSION = ["--style_weight", "0", "--start", "noise", "--content_layer", "features.6", "--steps", "200"]
FIGURES = {
    "filters": ["filters", NET, "packaged/vgg16", LITE],
    "filters-scratch": ["filters", NET, "--init", "scratch"],
    "activations": ["activations", NET, "--image", "{chelsea}", "--layer", "features.4", "--limit", "32"],
    "gradcam": ["gradcam", LITE, LITE2, "--image", "{chelsea}", "--curves"],
    "occlusion": ["gradcam", LITE, "--method", "occlusion", "--image", "{chelsea}", "--curves"],
    "saliency": ["gradcam", LITE, "--method", "saliency", "--image", "{chelsea}", "--curves"],
    "integrated": ["gradcam", LITE, "--method", "integrated", "--image", "{chelsea}", "--curves"],
    "dream": ["dream", NET, "--image", "{china}", "--layer", "features.9", "--size", "480"],
    "dream-lite0": ["dream", LITE, "--image", "{china}", "--layer", "16", "--size", "480"],
    "style": ["style", NET, *STYLE],
    "style-histogram": ["style", NET, *STYLE, "--colors", "histogram"],
    "style-luminance": ["style", NET, *STYLE, "--colors", "luminance"],
    "style-regions": ["style", NET, "--image", "{china}", "--style", "{hubble_deep_field}", "{ihc}",
                      "--regions", "{bright}", "{dark}", "--size", "320", *STYLE_LAYERS],
    "style-scales": ["style", NET, *STYLE, "--fine_style", "{gravel}"],
    "visualize": ["visualize", LITE, "--target", "tabby", "goldfish", "ambulance", *SMALL],
    "visualize-pixels": ["visualize", LITE, "--target", "tabby", "goldfish", "ambulance", *SMALL,
                         "--space", "pixels", "--jitter", "0", "--scale", "0", "--angle", "0"],
    "visualize-channels": ["visualize", NET, "--layer", "features.9", "--channel", *"0123", *SMALL],
    "inversion": ["style", NET, "--image", "{chelsea}", "--style", "{chelsea}", *INVERSION],
    "style-scratch": ["style", NET, *STYLE, "--init", "scratch"],
}  # fmt: skip


def image_files() -> dict[str, str]:
    """The photographs, by name."""
    folders = {"sklearn": "datasets/images", "skimage": "data"}
    names = {
        "sklearn": ("china.jpg",),
        "skimage": ("chelsea.png", "ihc.png", "hubble_deep_field.jpg", "gravel.png"),
    }
    files = {}
    for package, folder in folders.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.origin:
            raise SystemExit(f"{package} is not installed: pip install scikit-learn scikit-image")
        for name in names[package]:
            files[Path(name).stem] = str(Path(spec.origin).parent / folder / name)
    return files


def write_masks(photo: str, folder: Path) -> dict[str, str]:
    """Write masks of what is bright (the sky and the lake) and what is dark in a photograph."""
    gray = Image.open(photo).convert("L").filter(ImageFilter.GaussianBlur(4))
    masks = {"bright": gray.point(lambda v: 255 * (v > 140)), "dark": gray.point(lambda v: 255 * (v <= 140))}
    for name, mask in masks.items():
        mask.save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in masks}


def make(names: list[str]) -> int:
    """Write the named figures, or all; return how many commands failed."""
    files, failed = image_files(), 0
    masks = tempfile.TemporaryDirectory()
    files |= write_masks(files["china"], Path(masks.name))
    for name in names or FIGURES:
        ending = "png" if name.startswith("filters") else "jpg"
        words = [word.format(**files) for word in FIGURES[name]]
        began = time.process_time()
        status = main(["inspect", *words, "--out", str(STATIC / f"inspect-{name}.{ending}")])
        failed += status != 0
        print(f"{name}: {time.process_time() - began:.0f} s of processor time")
    masks.cleanup()
    return failed


if __name__ == "__main__":
    raise SystemExit(make(sys.argv[1:]))
