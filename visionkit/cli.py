"""The command `visionkit VERB`; what each verb does is in `VERBS`.

Recipes, runs, data, and what was trained. Heavy packages are imported only when a verb needs them. Exit
status 2: wrong input; 1: failed while running.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from visionkit import __version__
from visionkit.commands import (
    advise,
    check,
    compare,
    copy,
    describe,
    listing,
    pack,
    probe,
    run,
    transfer_map,
    tune,
)
from visionkit.commands.inspecting import verb as inspecting
from visionkit.commands.trained import evaluate, export, index, page, predict, publish, search, watch
from visionkit.errors import InputError, RunError, unknown_name
from visionkit.files import FULL
from visionkit.printable import for_terminal

__all__ = ["main"]

VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "ls": (listing.main, "list backbones, recipes or data sets, by pattern"),
    "describe": (describe.main, "say what a backbone, a run or an exported file is"),
    "cp": (copy.main, "copy a recipe into a file of your own"),
    "run": (run.main, "run a recipe, with its own flags"),
    "compare": (compare.main, "put finished runs side by side: table, report.html, comparison.json"),
    "map": (transfer_map.main, "compare over many backbones and data sets: one array of runs, one page"),
    "check": (check.main, "read a data set end to end and name what is wrong in it"),
    "advise": (advise.main, "measure a data set: what to freeze, how long to train, is scratch worth a try"),
    "probe": (probe.main, "score linear classifiers on frozen features of each level, by amount of data"),
    "pack": (pack.main, "read a data set once, and write it for fast random access"),
    "export": (export.main, "write a trained model as one file: onnx, torch or safetensors"),
    "page": (page.main, "write a page on which a browser answers images with a model"),
    "watch": (watch.main, "look at runs in a browser while they train"),
    "publish": (publish.main, "write a trained task into a folder to be shared, with a model card"),
    "predict": (predict.main, "predict on images, and write drawings, a contact sheet and data files"),
    "index": (index.main, "give every image of a data set a vector, to be searched"),
    "search": (search.main, "find the images of an index that are nearest to some images"),
    "evaluate": (evaluate.main, "score a trained model on its own data, or on other data of its kind"),
    "inspect": (inspecting.main, "see what a network computes and has learnt: layers, filters, maps, dreams"),
    "tune": (tune.main, "run a command with the CPU's memory allocator set for training"),
}

USAGE = """visionkit {version}: does pretrained init beat scratch here?

usage: visionkit VERB [...]

{verbs}

`visionkit VERB --help` says more. --debug shows where in the code an error came from; --version.

  visionkit run compare                          the first comparison, in minutes
  visionkit ls backbones '*resnet50*'
  visionkit run classify --data photos/ --out runs/photos
  visionkit predict runs/photos new-photos/ --out found"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: The arguments; those of the process if not given.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    # After a recipe's name it is a flag of the recipe too.
    of_recipe = args[:1] == ["run"] and "--debug" in args[2:]
    args = [arg for arg in args if arg != "--debug"] + ["--debug"] * of_recipe
    for name in ("stdout", "stderr"):  # Python has None for one that was closed before it started
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    try:
        return _dispatch(args)
    except InputError as error:
        return _print_error(error, 2, debug)
    except SystemExit as end:
        # argparse exits this way after --help.
        return int(end.code or 0)
    except KeyboardInterrupt:
        sys.stderr.write("\nvisionkit: interrupted by the keyboard.\n")
        return 130
    except BrokenPipeError:
        # `visionkit ls | head` is not an error.
        sys.stderr.close()
        return 0
    except (RunError, OSError) as error:
        return _print_error(error, 1, debug)
    except Exception as error:
        code = _print_error(error, 1, debug)
        if not debug:
            sys.stderr.write("This was not foreseen. Run it again with --debug to see where it came from.\n")
        return code


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        verbs = "\n".join(f"  {name:<10}{text}" for name, (_, text) in VERBS.items())
        sys.stdout.write(USAGE.format(version=__version__, verbs=verbs) + "\n")
        return 0
    if args[0] in ("-V", "--version"):
        sys.stdout.write(f"visionkit {__version__}\n")
        return 0
    if args[0] not in VERBS:
        raise unknown_name("verb", args[0], VERBS, hint="See visionkit --help.")
    return VERBS[args[0]][0](args[1:])


def _print_error(error: Exception, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    name = "" if isinstance(error, InputError | RunError) else f"{type(error).__name__}: "
    if isinstance(error, OSError) and error.errno in FULL:
        error = OSError(f"{error}. Free some space, then start the same command again.")
    sys.stderr.write(for_terminal(f"visionkit: {name}{error}\n"))
    return code


if __name__ == "__main__":
    sys.exit(main())
