"""`visionkit map`: backbones on data sets, each pair an ordinary comparison, on one page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from visionkit.commands.arguments import VerbParser
from visionkit.commands.recipes import load_recipe
from visionkit.errors import InputError

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """Run every comparison of the map that is not finished, and write the page."""
    args = _parser().parse(argv)
    from visionkit.run.map.map_config import read_map_config
    from visionkit.run.processes.stop import listening
    from visionkit.run.requests import asking
    from visionkit.run.sweep.launch import guard

    number = args.only if args.only is not None else _task()
    config = read_map_config(
        args.config, lambda name: load_recipe(name, beside=args.config), out=args.out, jobs=args.jobs
    )
    command = [sys.executable, "-m", "visionkit", "map", *argv]
    with guard("visionkit map", out=lambda: str(config.out)), listening(), asking(command=command):
        if args.dry_run:
            from visionkit.run.map.map_cost import print_cost

            print_cost(config)
            return 0
        from visionkit.run.map.run_map import publish_map, run_map, train_one_of

        if args.report:
            publish_map(config)
        elif number is not None:
            train_one_of(config, number)
        else:
            run_map(config)
    return 0


def _task() -> int | None:
    """Return the number of this task of a SLURM job array; None outside of one."""
    text = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"Expected SLURM_ARRAY_TASK_ID to be a number from 0, but got {text!r}.")
    return int(text)


def _parser() -> VerbParser:
    parser = VerbParser(
        "map",
        "Compare pretrained init with scratch for each of several backbones on each of several data sets,\n"
        "of any recipe: one array of runs that goes on after any stop, and one page, map.html.",
        epilog="CONFIG.yaml:\n"
        "  backbones: [packaged/efficientnet_lite0, packaged/squeezenet1_1]\n"
        "  data:\n"
        "    photos: {recipe: classify, data: photos/, image_size: 64, images: 8000}\n"
        "    cells: {recipe: detect, data: bccd/, variant: small, images: 2448}\n"
        "  init: [pretrained, scratch]      # from here on: settings of all recipes\n"
        "  fractions: [0.1, 1]\n"
        "  seeds: [0, 1]\n\n"
        "examples:\n  visionkit map map.yaml --dry_run\n  visionkit map map.yaml --out runs/map\n"
        "  sbatch --array=0-31 recipes/cluster/slurm.sbatch -m visionkit map map.yaml",
    )
    parser.add_argument("config", metavar="CONFIG.yaml", help="what is compared, see below")
    parser.add_argument(
        "--out", default="", help="the folder of it all (default: that of the file, or runs/NAME)"
    )
    parser.add_argument(
        "--jobs", type=int, help="runs at a time on a CPU; 0: one a thread, 4 at most (default: of the file)"
    )
    parser.add_argument(
        "--only",
        type=int,
        metavar="N",
        help="train run N alone, from 0 (default in a SLURM array: SLURM_ARRAY_TASK_ID)",
    )
    parser.add_argument(
        "--report", action="store_true", help="write the page of what is finished, and start nothing"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="time some steps of each cell; print runs, images and hours"
    )
    return parser
