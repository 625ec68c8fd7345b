"""Flags that name a network and an image, and the files that are written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from visionkit.commands.arguments import VerbParser
from visionkit.errors import InputError, expected
from visionkit.files import writing
from visionkit.printable import for_terminal

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from visionkit.interpret.subject import Subject

__all__ = ["add_network", "check_out", "opened", "read", "read_mask", "write_image", "write_tensor"]


def add_network(parser: VerbParser, *, image: str = "", multiple: bool = False) -> None:
    """Add the network, its weights, the image and the file that is written.

    Args:
        parser: The kind's flags.
        image: What the image is for; empty without one.
        multiple: Whether several networks are shown side by side.
    """
    of = "as in `visionkit ls backbones`; or a run"
    if multiple:
        parser.add_argument("names", nargs="+", metavar="NAME", help=f"{of}; several are shown side by side")
    else:
        parser.add_argument("name", metavar="NAME", help=of)
    if image:
        parser.add_argument("--image", required=True, metavar="FILE", help=f"{image} (required)")
        parser.add_argument(
            "--size", type=int, default=0, metavar="N", help="its longer side (default: the network's own)"
        )
    parser.add_argument("--out", required=True, metavar="FILE", help="the image that is written (required)")
    parser.add_argument(
        "--init",
        default="pretrained",
        help="weights of a backbone: pretrained (default), scratch, NAME.TAG, path",
    )
    parser.add_argument("--seed", type=int, default=0, help="of random weights and draws (default 0)")


def check_out(path: str) -> Path:
    """Return the file that is written, before anything is computed.

    Raises:
        InputError: Its folder does not exist, or its ending is no image's.
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise InputError(expected("--out", "a file that ends with .png, .jpg or .webp", path))
    if not file.parent.is_dir():
        raise InputError(
            f"Expected --out in a folder that exists, but {file.parent} does not. Make it first."
        )
    return file


def opened(name: str, args: argparse.Namespace) -> Subject:
    """Return the network of a name, with the weights of the flags.

    Args:
        name: A backbone or a run.
        args: The values of `add_network`.
    """
    import torch

    from visionkit.interpret.subject import open_subject

    torch.manual_seed(args.seed)
    subject = open_subject(name, init=args.init)
    if subject.note:
        sys.stderr.write(f"{for_terminal(subject.note)}\n")
    return subject


def read(subject: Subject, path: str, size: int = 0) -> Tensor:
    """Return an image file as floats `(C, H, W)` in [0, 1] of a size that the network takes.

    Args:
        subject: The network.
        path: The file.
        size: Of the longer side; 0 for the network's own.

    Raises:
        InputError: The network takes other channels than a file has, or another size.
    """
    from visionkit.data.read_image import read_image

    if subject.channels not in (1, 3):
        raise InputError(f"{subject.name!r} takes {subject.channels} channels, which no image file has.")
    if size < 0:
        raise InputError(expected("--size", "1 or more", size))
    image = read_image(path)
    fitted = subject.fit(image, size)
    return fitted.mean(0, keepdim=True) if subject.channels == 1 else fitted


def read_mask(path: str, image: Tensor, of: str) -> Tensor:
    """Return a mask file as floats `(H, W)` in [0, 1], of the size of an image that it is for.

    Args:
        path: The file: white is 1, black 0.
        image: `(C, H, W)`.
        of: The flag that gave the image.

    Raises:
        InputError: The mask has other proportions than the image.
    """
    from torch.nn import functional as F

    from visionkit.data.read_image import read_image

    mask = read_image(path).float().mean(0, keepdim=True) / 255  # (1, h, w)
    height, width = image.shape[-2:]
    ratio = (mask.shape[-1] / mask.shape[-2]) / (width / height)
    if not 0.95 < ratio < 1.05:
        raise InputError(
            f"{path} has {mask.shape[-1]}x{mask.shape[-2]} pixels, other proportions than the image of {of} "
            f"({width}x{height} as it is taken). Make a mask of the whole image."
        )
    return F.interpolate(mask[None], (height, width), mode="area")[0, 0]


def write_image(image: Image.Image, path: Path) -> None:
    """Write an image and say where.

    Args:
        image: The image.
        path: The file.
    """
    from visionkit.drawing.panels import save_image

    with writing(path.parent):
        save_image(image.convert("RGB"), path)
    sys.stdout.write(for_terminal(f"{path}  {image.width}x{image.height}") + "\n")


def write_tensor(image: Tensor, path: Path) -> None:
    """Write a tensor `(C, H, W)` in [0, 1] as it is, pixel by pixel.

    Args:
        image: The tensor.
        path: The file.
    """
    from visionkit.run.previews.to_pil import to_pil

    write_image(to_pil(image, side=max(image.shape[-2:])), path)
