"""Long and wide use of one daemon: nothing hangs, nothing is wrong, nothing is left."""

import asyncio
import gc
import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import spawny
from spawny import callback
from spawny.client.proxy import reference_of
from tests.end_to_end.processes import eventually

# A minute shows races that a second hides.
SECONDS = float(os.environ.get("SPAWNY_ENDURANCE_SECONDS", "60"))

SCRIPT = """
import gc, sys

class Thing:
    pass
thing = Thing()

def identity(x):
    return x
def call(f, *args):
    return f(*args)
def make(n):
    return [Thing() for _ in range(n)]
def make_one():
    return Thing()
async def later(x):
    import asyncio
    await asyncio.sleep(0)
    return x
def counts():
    gc.collect()
    kernel = sys.modules["_spawny_kernel.objects"]
    exports, = [each for each in gc.get_objects() if type(each) is kernel.Exports]
    things = sum(type(each) is Thing for each in gc.get_objects())
    return len(exports), things
"""


@pytest.mark.timeout(SECONDS + 120)
def test_threads_and_tasks_with_nested_callbacks(home: Path) -> None:
    """Eight threads and four asyncio tasks: no deadlock, and no wrong answer."""
    m = spawny.run_script(SCRIPT)
    identity, call, later = m.identity, m.call, m.later
    end = time.monotonic() + SECONDS
    wrong: list[Any] = []
    rounds = itertools.count()

    def chain(x: Any, depth: int) -> Any:
        if depth == 0:
            return identity(x)
        return call(callback(lambda y: chain(y, depth - 1)), x)

    def work(name: int) -> None:
        for i in itertools.count():
            if time.monotonic() > end:
                return
            x = (name, i)
            answers = [
                chain(x, 1 + i % 4),
                spawny.submit(identity, x).result(60),
                call(callback(lambda y: spawny.submit(identity, y).result(60)), x),
            ]
            if answers != [x] * 3:
                wrong.append((x, answers))
            next(rounds)

    async def task(name: int) -> None:
        for i in itertools.count():
            if time.monotonic() > end:
                return
            x = (name, i)
            answers = [
                await spawny.aio.call(later, x),
                await spawny.aio.call(identity, x),
                await spawny.aio.call(call, callback(lambda y: chain(y, 2)), x),
            ]
            if answers != [x] * 3:
                wrong.append((x, answers))
            next(rounds)

    async def tasks() -> None:
        await asyncio.gather(*(task(100 + name) for name in range(4)))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for each in threads:
        each.start()
    asyncio.run(tasks())
    for each in threads:
        each.join()
    assert not wrong
    assert next(rounds) > 12 * SECONDS
    session: Any = reference_of(m).session
    assert eventually(lambda: len(session.callbacks) == 0)
    m.terminate_daemon()


def test_a_hundred_thousand_references(home: Path) -> None:
    """The export table is empty at the end, and neither side has grown."""
    m = spawny.run_script(SCRIPT)
    counts, make, make_one = m.counts, m.make, m.make_one
    daemon = psutil.Process(spawny.daemon(m).pid)
    before = tuple(counts())

    def churn(n: int) -> None:
        for _ in range(n // 100):
            things = [make_one() for _ in range(50)]
            things += list(make(50))
            assert all(issubclass(type(each), spawny.ObjectProxy) for each in things)

    churn(20_000)
    rss = psutil.Process().memory_info().rss, daemon.memory_info().rss
    churn(100_000)
    gc.collect()
    assert eventually(lambda: tuple(counts()) == before)
    for process, old in zip((psutil.Process(), daemon), rss, strict=True):
        assert process.memory_info().rss < old + 4 * 1024 * 1024
    m.terminate_daemon()
