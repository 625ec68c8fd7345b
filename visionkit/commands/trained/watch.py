"""`visionkit watch`: look at runs in a browser while they train."""

from __future__ import annotations

import contextlib
import os
import sys
import webbrowser
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.printable import for_terminal

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Serve the page until Ctrl-C, which is status 130."""
    parser = VerbParser(
        "watch",
        "Look at runs in a browser while they train: learning curves of all arms, the first layer and\n"
        "activation maps as they change, predictions, speed and time left. Reads the folders, writes\n"
        "nothing; only this machine can open the page.",
        epilog="examples:\n  visionkit watch runs/classify\n"
        "  visionkit watch runs/a runs/b --port 8080 --no_browser",
    )
    parser.add_argument(
        "folders", nargs="+", metavar="RUNS", help="run folders, or folders that hold runs or will hold some"
    )
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1; 0 takes a free one (default)")
    parser.add_argument("--no_browser", action="store_true", help="only print the address")
    args = parser.parse(argv)
    from visionkit.watch import WatchServer

    server = WatchServer(args.folders, port=args.port)
    try:
        count = len(server.runs())
        runs = f"{count} run{'s' * (count != 1)}" if count else "no run yet, waiting for the first"
        sys.stdout.write(for_terminal(f"{runs}  {server.address}\nCtrl-C ends this page; the runs go on.\n"))
        sys.stdout.flush()
        if not args.no_browser and _has_screen():
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(server.address)
        server.serve()
    except KeyboardInterrupt:
        sys.stderr.write("\nThe page has ended.\n")
        return 130
    finally:
        server.release()
    return 0


def _has_screen() -> bool:
    """Return whether there is a screen for a browser: on Linux, a display of this session."""
    return not sys.platform.startswith("linux") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
