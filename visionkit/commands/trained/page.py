"""`visionkit page`: a static page on which a browser answers images with a model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.errors import InputError
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Write the page."""
    args = _parser().parse(argv)
    from visionkit.predict.page import download_runtime, find_runtime, write_page
    from visionkit.predict.page.runtime import HOW

    if bool(args.runtime) == args.download:
        what = (
            "but got both" if args.download else "but got neither: the page runs the model in onnxruntime-web"
        )
        raise InputError(f"Expected --runtime or --download, {what}. {HOW}")
    runtime = download_runtime() if args.download else find_runtime(args.runtime)
    page = write_page(
        args.run,
        args.folder,
        runtime=runtime,
        title=args.title,
        examples=args.examples,
        overwrite=args.overwrite,
    )
    serve = f"python -m http.server --directory {page.folder}"
    how = (
        f"The model is too large to open the page as a file; serve it: {serve}"
        if page.needs_server
        else f"Open it in a browser, put the folder on any web server, or try one: {serve}"
    )
    lines = (f"{page.index}  {page.size / 1e6:.0f} MB", *page.notes, how)
    sys.stdout.write(for_terminal("\n".join(lines) + "\n"))
    return 0


def _parser() -> VerbParser:
    parser = VerbParser(
        "page",
        "Write a static page on which a visitor drops an image and the model answers in the browser,\n"
        "without a server and without a network: classes with bars, boxes, masks, sentences.\n"
        "The model runs in onnxruntime-web, which you give from npm, or have fetched.",
        epilog="examples:\n  npm pack onnxruntime-web@1.30.0\n"
        "  visionkit page runs/classify page --runtime onnxruntime-web-1.30.0.tgz\n"
        "  visionkit page model.onnx page --download --examples images/a.jpg images/b.jpg",
        loads=True,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint, or an exported .onnx file")
    parser.add_argument("folder", metavar="FOLDER", help="where to write; a new or an empty folder")
    parser.add_argument(
        "--runtime",
        default="",
        metavar="PATH",
        help="onnxruntime-web: the .tgz of `npm pack`, the unpacked package, or a node_modules",
    )
    parser.add_argument(
        "--download",
        action="store_true",
        help="fetch onnxruntime-web from registry.npmjs.org (33 MB) and check its digest",
    )
    parser.add_argument("--title", default="", help="heading of the page")
    parser.add_argument(
        "--examples", nargs="+", default=[], metavar="IMAGE", help="images that a visitor can choose"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a page in FOLDER")
    return parser
