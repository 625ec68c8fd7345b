"""How a recipe starts from a shell: parse, run, and exit with a status for each kind of end."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visionkit.errors import InputError, PreemptedError, RunError
from visionkit.printable import for_terminal
from visionkit.run.command_line import parse
from visionkit.run.config import RunConfig
from visionkit.run.processes.stop import first_speaks, listening
from visionkit.run.requests import FINDERS, asking

__all__ = ["EXIT_FAILED", "EXIT_INPUT", "EXIT_INTERRUPTED", "EXIT_PREEMPTED", "guard", "launch"]

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def launch(
    main: Callable[[ConfigT], Any],
    config: type[ConfigT],
    *,
    variants: Sequence[Callable[[ConfigT], ConfigT]] = (),
    doc: str | None = None,
    prog: str = "",
    argv: Sequence[str] | None = None,
) -> None:
    """Parse the command line into `config` and run `main`; leave the process with its status.

    Status 0 is success, 2 something the user can put right, 1 a failure, 75 a run that was asked to stop and
    130 an interrupt (Ctrl-C): both continue when the same command is started again. Errors are one message;
    `--debug` adds the traceback. With `--find_lr` or `--find_batch_size` nothing is trained: the value is
    looked for, printed and kept (`find_settings`). With `--dry_run` the runs and their cost are printed.

    Args:
        main: Takes the config.
        config: The recipe's dataclass.
        variants: Named settings.
        doc: The recipe's docstring, shown in the help.
        prog: The recipe's name, where it is not run as a file: a copy is named after its file.
        argv: The arguments; those of the process if not given.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if argv is None and sys.argv[0].endswith(".py"):
        prog = Path(sys.argv[0]).name
    debug = "--debug" in args
    find = [name for name in FINDERS if f"--find_{name}" in args]
    dry_run = "--dry_run" in args
    bare = ("--debug", "--dry_run", *(f"--find_{name}" for name in find))
    args = [arg for arg in args if arg not in bare]
    made: RunConfig | None = None
    with guard(prog or "recipe", debug=debug, out=lambda: made.out if made else ""):
        with _reader_may_leave():
            made = parse(config, args, variants=variants, doc=doc or "", prog=prog)
        # From here on, before the long imports, a queue's signal ends nothing: the run saves first.
        program = [sys.executable, *sys.argv[:1]] if argv is None else [prog or "recipe"]
        with listening(), asking(find=find, command=[*program, *args], dry_run=dry_run):
            main(made)


@contextlib.contextmanager
def guard(prog: str, *, debug: bool = False, out: Callable[[], str] = str) -> Iterator[None]:
    """Turn an error inside into one message and the exit status of its kind, as `launch` does.

    Args:
        prog: The name before the message.
        debug: Show the traceback instead.
        out: Gives the folder that is written to, for a full disk.
    """
    try:
        yield
    except (InputError, RunError, KeyboardInterrupt, OSError) as error:
        if debug or (isinstance(error, OSError) and error.errno not in FULL):
            raise
        status, text = _judge(error, out())
        if status != EXIT_INTERRUPTED or first_speaks():
            sys.stderr.write(for_terminal(f"\n{prog}: {text}\n"))
        raise SystemExit(status) from None


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End well where the program that reads the help has seen enough: `--help | head` is no failure."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # not first at the very end, where nobody can catch it
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drops what is still buffered
        raise SystemExit(0) from None


def _judge(error: BaseException, out: str) -> tuple[int, str]:
    if isinstance(error, OSError):
        path = Path(str(error.filename or out or "."))
        free = next(shutil.disk_usage(p).free for p in (path, *path.absolute().parents) if p.exists())
        return EXIT_FAILED, (
            f"{path} could not be written: {error.strerror}; {free} bytes are free. Free some space or "
            "choose another --out, then start the same command again."
        )
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, str(error) or (
            "interrupted by the keyboard. Start the same command again to go on: finished runs stay, the "
            "others continue from their last checkpoints; a run that has none yet starts again."
        )
    if isinstance(error, PreemptedError):
        return EXIT_PREEMPTED, str(error)
    return (EXIT_INPUT if isinstance(error, InputError) else EXIT_FAILED), str(error)
