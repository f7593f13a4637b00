"""Damages files of every kind at random and reads them: what is noticed, what is lost, and what must never happen.

    PYTHONPATH=. python benchmarks/corruption.py --count 1000 --seed 0

Every file is damaged in one of the ways of `HARMS` and read as a run would read it. Right are the same values as
before, and a ValueError of one line. Wrong are other exceptions (tracebacks), reading that does not end (hangs), other
values where a checksum exists (silent), and records lost that were not damaged.
"""

import argparse
import contextlib
import faulthandler
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.damaged import KINDS, Kind
from benchmarks.harms import damage

LIMIT = 20
"""Seconds after which reading counts as a hang."""


class Hang(BaseException):
    """Reading has not ended in time."""


def judge(kind: Kind, folder: Path, right: Any) -> tuple[str, str]:
    """What came of reading damaged files, and a word on it."""

    def stop(*_: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = kind.read(folder)
    except ValueError as error:
        return ("traceback", "several lines: " + repr(error)) if "\n" in str(error).strip() else ("named", str(error))
    except OSError as error:  # launch.py says it in one line
        return "named", str(error)
    except Hang:
        return "hang", ""
    except BaseException as error:
        return "traceback", repr(error)[:300]
    finally:
        signal.alarm(0)
    if found == right:
        return "same", ""
    return ("silent" if kind.summed else "changed"), ""


def run(count: int, seed: int, say: Callable[[str], None] = print) -> dict[str, Counter]:
    """Makes `count` corruptions, the kinds in turn; gives how often each outcome came, by kind."""
    dice, table = random.Random(seed), {name: Counter() for name in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        right, names = {}, list(KINDS)
        for name, kind in KINDS.items():
            home = Path(scratch) / "right" / name
            home.parent.mkdir(exist_ok=True)
            kind.make(home)
            shutil.copytree(home, Path(scratch) / "first" / name)
            right[name] = kind.read(Path(scratch) / "first" / name)
        for number in range(count):
            name = names[number % len(names)]
            kind, folder = KINDS[name], Path(scratch) / "damaged" / name
            shutil.copytree(Path(scratch) / "right" / name, folder)
            file = dice.choice(sorted(file for file in folder.glob(kind.files) if file.is_file()))
            harm = damage(file, dice)
            outcome, word = judge(kind, folder, right[name])
            table[name][outcome] += 1
            if outcome in ("traceback", "hang", "silent"):
                say(f"{outcome}: {name}, {file.relative_to(folder)}, {harm} (number {number}): {word}")
            shutil.rmtree(Path(scratch) / "damaged")
    return table


OUTCOMES = ("named", "same", "changed", "silent", "traceback", "hang")


def main() -> int:
    """Prints a table; exit status 1 if anything happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faulthandler.enable()
    started = time.monotonic()
    table = run(arguments.count, arguments.seed)
    print(f"| {arguments.count} corruptions, seed {arguments.seed} | " + " | ".join(OUTCOMES) + " |")
    print("|---" * (len(OUTCOMES) + 1) + "|")
    total = sum(table.values(), Counter())
    for name, counts in [*table.items(), ("all", total)]:
        print(f"| {name} | " + " | ".join(str(counts[outcome]) for outcome in OUTCOMES) + " |")
    print(f"{time.monotonic() - started:.0f} s")
    return int(any(total[bad] for bad in ("silent", "traceback", "hang")))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.exit(main())
