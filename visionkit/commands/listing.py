"""`visionkit ls`: list backbones, recipes and data formats."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.recipes import list_applications, list_cluster_files, list_recipes, summary
from visionkit.errors import unknown_name

__all__ = ["main"]

KINDS = ("backbones", "data", "recipes")


def main(argv: Sequence[str]) -> int:
    """List backbones, recipes or data sets."""
    parser = VerbParser(
        "ls",
        "List what there is: backbones, recipes or data sets.",
        epilog="examples:\n  visionkit ls recipes\n  visionkit ls backbones '*convnext*' --source timm",
    )
    parser.add_argument(
        "kind", nargs="?", default="", help="backbones | recipes | data (recipes if left out)"
    )
    parser.add_argument("pattern", nargs="?", default="*", help="a shell pattern; plain text is searched for")
    parser.add_argument("--source", help="backbones: timm | torchvision | packaged | user")
    args = parser.parse(argv)
    if args.kind and args.kind not in KINDS:
        raise unknown_name("kind of thing to list", args.kind, KINDS)
    pattern = args.pattern if any(char in args.pattern for char in "*?[") else f"*{args.pattern}*"
    if args.kind == "backbones":
        return _backbones(pattern, args.source)
    if args.kind in ("", "recipes"):
        rows = {name: summary(path) for name, path in list_recipes().items()}
        _print("recipes", rows, pattern)
        rows = {name: summary(path) for name, path in list_applications().items()}
        _print("of one application", rows, pattern)
        rows = {name: summary(path) for name, path in list_cluster_files().items()}
        _print("on a cluster (copy one with visionkit cp)", rows, pattern)
    if args.kind == "data":
        _print("data", _formats(), pattern)
    if not args.kind:
        sys.stdout.write("backbones: visionkit ls backbones [PATTERN]\ndata sets: visionkit ls data\n")
    return 0


def _formats() -> dict[str, str]:
    from visionkit.data.formats.open import FORMATS, STREAM

    scenes = "embedded, composed from OpenMoji drawings (extra `demo`): for every task"
    rows = {each.name: f"{each.layout} ({', '.join(each.tasks)})" for each in (*FORMATS, STREAM)}
    return {"scenes": scenes} | rows


def _backbones(pattern: str, source: str | None) -> int:
    from visionkit.backbones import list_backbones

    names = list_backbones(pattern, source=source)
    sys.stdout.write("".join(f"{name}\n" for name in names))
    sys.stderr.write(f"{len(names):,} backbones; `visionkit describe NAME` says what one is.\n")
    return 0


def _print(title: str, rows: dict[str, str], pattern: str) -> None:
    chosen = {name: text for name, text in rows.items() if fnmatch.fnmatch(name, pattern)}
    width = max(map(len, chosen), default=0) + 2
    sys.stdout.write(f"{title}:\n" + "".join(f"  {name:<{width}}{text}\n" for name, text in chosen.items()))
