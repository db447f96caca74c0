"""Wrong input for everything that reads what others send: `make fuzz`, or

    python -m tests.fuzz.run --inputs 1000000 --seed 1

What parses takes most of it, in this process; a supervisor and a daemon of every interpreter that
is named get the rest on their sockets. A failure tells the target; the seed replays it.
"""

import argparse
import logging
import os
import random
import sys
import time
from collections.abc import Callable

from tests import interpreters
from tests.conftest import private_home
from tests.fuzz import parsers
from tests.fuzz.live import LiveSupervisor, daemon_target

# Of all inputs, for each live target: they are slower.
LIVE_SHARE = 0.02

# The oldest, the usual, and the other implementation.
INTERPRETERS = "cpython3.6,cpython3.11,pypy3.9"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--interpreters", default=INTERPRETERS, help="of the daemons")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    print(f"seed {options.seed}", flush=True)
    found = interpreters.select(interpreters.find(), options.interpreters)
    live = max(1, int(options.inputs * LIVE_SHARE))
    with private_home() as home:
        os.environ["SPAWNY_HOME"] = str(home)
        supervisor = LiveSupervisor(random.Random(options.seed))
        for target in (supervisor.control, supervisor.greeting, supervisor.link):
            feed("supervisor", target, live)
        supervisor.close()
    for each in found:
        with daemon_target(each.path, random.Random(options.seed)) as daemon:
            for target in (daemon.first, daemon.request):
                feed(f"daemon {each.label}", target, live)
    parsing = parsers.targets(random.Random(options.seed))
    left = options.inputs - live * (3 + 2 * len(found))
    for target in parsing.values():
        feed("parser", target, max(1, left // len(parsing)))
    return 0


def feed(where: str, target: Callable[[], None], inputs: int) -> None:
    """So many inputs for one target; what it raises tells which."""
    name = f"{where}, {getattr(target, '__name__', '')}"
    began = time.monotonic()
    for number in range(inputs):
        try:
            target()
        except BaseException as error:
            error.add_note(f"{name}: input {number}")
            raise
    seconds = time.monotonic() - began
    print(f"{name}: {inputs} inputs in {seconds:.0f} s, {inputs / seconds:.0f}/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
