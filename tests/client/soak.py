"""A long random history of arrays that travel: `make soak`, or

    python -m tests.client.soak --operations 1000000 --seed 1

The rules are those of test_segments_random.py, drawn without hypothesis. The seed draws the same
operations again; when a death or a Ctrl-C meets them is the machine's own choice.
"""

import argparse
import logging
import os
import random
import sys
import time

from tests.client import test_segments_random as histories
from tests.conftest import private_home

TELL_EVERY = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    logging.disable(logging.INFO)
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()

    def tell(operations: int) -> None:
        if operations % TELL_EVERY < histories.OPERATIONS_A_RUN:
            rate = operations / (time.monotonic() - began)
            print(f"{operations} operations, {rate:.0f}/s", flush=True)

    with private_home() as home:
        os.environ["SPAWNY_HOME"] = str(home)
        with histories.whole_world():
            rng = random.Random(options.seed)
            histories.run_at_random(options.operations, rng, tell)
        print(f"{histories.world.operations} operations, all is as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
