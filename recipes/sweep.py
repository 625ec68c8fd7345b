"""Search for good settings of a recipe by Optuna: each trial a run folder, poor trials end early.

python recipes/sweep.py classify --data photos/ --init pretrained --seeds 0 --search lr=1e-4..1e-1
python recipes/sweep.py detect --data bccd/ --init scratch --seeds 0 --trials 30 --out runs/sweep-scratch \
    --search lr=1e-4..1e-2 optim.weight_decay=1e-4..0.3 augment=flip,jitter,lsj
visionkit compare runs/sweep-scratch --by lr optim.weight_decay augment     # the table, at any time

The same command again goes on: a trial that was killed continues from its checkpoint. Several commands on one
folder share its trials, as the tasks of a job array do:
sbatch --array=0-7 recipes/cluster/slurm.sbatch recipes/sweep.py classify --out runs/sweep ...
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionkit.commands import VerbParser, load_recipe
from visionkit.run import RunConfig, format_usage, guard


def read_arguments(argv: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the flags of the search, and those of the recipe."""
    parser = VerbParser("", __doc__ or "")
    parser.prog, parser.usage = "sweep.py", "sweep.py RECIPE --search NAME=LOW..HIGH ... [--FLAG VALUE ...]"
    parser.add_argument("recipe", help="classify, detect, segment, caption; a file of that name beside wins")
    parser.add_argument(
        "--search",
        nargs="+",
        required=True,
        metavar="NAME=VALUES",
        help="what is searched: lr=1e-4..1e-1 (logarithmic where the ends are 10 times apart), augment=a,b",
    )
    parser.add_argument("--trials", type=int, default=20, help="how many trials there are to be [20]")
    parser.add_argument("--out", default="", help="the folder of the trials [runs/sweep-RECIPE]")
    parser.epilog = (
        "all other flags are the recipe's (--data, --backbone, --init, --seeds ...), for every trial"
    )
    if "--help=all" in argv:
        print(parser.format_help(), format_usage(RunConfig, prog="RECIPE", everything=True), sep="\n")
        raise SystemExit(0)
    return parser.parse_known_args(list(argv))


def main(argv: Sequence[str]) -> Path:
    """Run the trials, print the table, and return the folder of it all."""
    args, shared = read_arguments(argv)
    recipe = load_recipe(args.recipe, beside=__file__)
    out = Path(args.out or f"runs/sweep-{args.recipe}")
    from visionkit.compare import compare_by
    from visionkit.run import Search, parse_range, run_search

    ranges = [parse_range(text, recipe.Config) for text in args.search]
    search = Search(recipe.Config, recipe.train, shared, ranges, out, getattr(recipe, "VARIANTS", ()))
    study = run_search(search, trials=args.trials)
    names = [each.name for each in ranges]
    table = compare_by([out], names)
    print(table.text())
    print(f"table  {table.write(out)}\ntrials {out}\nstudy  {out / 'study.db'}")
    best = [f"--{name}={value}" for name, value in study.best_trial.params.items()]
    command = [sys.executable, str(recipe.__file__), *shared, *best]
    print(f"\nThe best settings, over more seeds:\n  {shlex.join(command)} --seeds 0 1 2 --out {out}-best")
    return out


if __name__ == "__main__":
    with guard("sweep.py"):
        main(sys.argv[1:])
