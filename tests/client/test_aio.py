"""Daemons in programs of asyncio: what is awaited, what is cancelled, what blocks nobody."""

import asyncio
import gc
import os
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import aio
from tests.end_to_end.processes import PATIENCE_SECONDS, Script, eventually, is_gone, kill
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = '''
import asyncio, os, sys, time

lock = asyncio.Lock()
log = []

def plain(x):
    return x

def pid():
    return os.getpid()

def wait(path):
    open(path, "w").close()
    time.sleep(60)

async def add(a, b):
    async with lock:
        await asyncio.sleep(0)
    return a + b

async def current():
    return asyncio.get_event_loop().is_running()

def fresh_loop():
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.sleep(0, "own"))
    finally:
        loop.close()

async def fail():
    await asyncio.sleep(0)
    raise KeyError("no")

async def leave():
    sys.exit(3)

async def forever():
    log.append("started")
    try:
        await asyncio.Event().wait()
    finally:
        log.append("cleaned")

async def together(n):
    """Over when n of them are under way at once."""
    together.count += 1
    if together.count == n:
        together.all.set()
    await together.all.wait()
    return n

together.count, together.all = 0, asyncio.Event()

async def in_background():
    asyncio.ensure_future(later())

async def later():
    await asyncio.sleep(0.01)
    log.append("later")

class Awaitable:
    def __await__(self):
        yield
        return "awaited"

class Countdown:
    def __init__(self, n):
        self.n = n
    def __aiter__(self):
        return self
    async def __anext__(self):
        await asyncio.sleep(0)
        if not self.n:
            raise StopAsyncIteration
        self.n -= 1
        return self.n

class Manager:
    async def __aenter__(self):
        await asyncio.sleep(0)
        return "entered"
    async def __aexit__(self, kind, error, trace):
        await asyncio.sleep(0)
        log.append(kind and kind.__name__)
        return kind is KeyError

awaitable = Awaitable()
manager = Manager()
countdown = Countdown
squares = [n * n for n in range(1000)]

def generate(n):
    yield from range(n)

async def agenerate(n):
    try:
        for i in range(n):
            await asyncio.sleep(0)
            yield i
    finally:
        log.append("closed")
'''


@pytest.fixture
def module(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()  # pytest holds on to a fixture's value


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run, but never for ever."""
    return asyncio.run(asyncio.wait_for(main, PATIENCE_SECONDS))


def test_calls_under_any_interpreter(interpreter: Interpreter) -> None:
    """Plain functions and coroutine functions; locks of the script; errors; loops of user code."""

    async def main() -> None:
        module = await aio.run_script(SCRIPT, interpreter.path)
        assert await aio.call(module.plain, 1) == 1
        assert await asyncio.gather(*[aio.call(module.add, n, b=n) for n in range(20)]) == [
            2 * n for n in range(20)
        ]
        with pytest.raises(KeyError, match="no") as caught:
            await aio.call(module.fail)
        assert isinstance(caught.value.__cause__, spawny.RemoteTraceback)
        assert await aio.call(module.current) is True
        assert await aio.call(module.fresh_loop) == "own"
        assert await aio.call(module.add, 1, 2) == 3

    run(main())


def test_special_methods_under_any_interpreter(interpreter: Interpreter) -> None:
    """await, async for and async with, on proxies whose type has what it takes."""

    async def main() -> None:
        module = await aio.run_script(SCRIPT, interpreter.path)
        assert await module.add(1, 2) == 3
        assert await module.awaitable == "awaited"
        assert [x async for x in module.agenerate(5)] == [0, 1, 2, 3, 4]
        assert [x async for x in module.countdown(3)] == [2, 1, 0]
        assert await anext(module.agenerate(5)) == 0
        async with module.manager as entered:
            assert entered == "entered"
        async with module.manager:
            raise KeyError
        with pytest.raises(ValueError):
            async with module.manager:
                raise ValueError
        wanted = [None, "KeyError", "ValueError"]
        assert [x for x in spawny.value(module.log) if x != "closed"] == wanted
        assert not hasattr(type(module.squares), "__aiter__")
        assert not hasattr(type(module.squares), "__await__")

    run(main())


def test_iterate(module: Any) -> None:
    """Whatever can be iterated there: collections, generators, asynchronous ones."""

    async def main() -> None:
        assert [x async for x in aio.iterate(module.squares)] == [n * n for n in range(1000)]
        assert [x async for x in aio.iterate(module.generate(7))] == list(range(7))
        assert [x async for x in aio.iterate(module.agenerate(7))] == list(range(7))
        with pytest.raises(TypeError):
            [x async for x in aio.iterate(module.plain)]

    run(main())


def test_an_iteration_that_is_left_is_closed(module: Any) -> None:
    """The asynchronous generator there runs its `finally` once nobody has it any more."""

    async def main() -> None:
        async for _ in aio.iterate(module.agenerate(1000)):
            break

    run(main())
    gc.collect()  # asyncio.run may leave the iteration in a cycle, with its cancellation
    assert eventually(lambda: "closed" in spawny.value(module.log))


def test_hundreds_of_awaits_at_once(module: Any) -> None:
    """All are under way there at the same time, with one thread here for all of them."""

    async def main() -> None:
        together = module.together
        before = threading.active_count()
        calls = [asyncio.create_task(aio.call(together, 500)) for _ in range(500)]
        assert await asyncio.gather(*calls) == [500] * 500
        assert threading.active_count() <= before + 1

    run(main())


def test_cancelling_a_task_cancels_it_there(module: Any) -> None:
    """It cleans up, and the daemon stays usable."""

    async def main() -> None:
        tasks = [asyncio.create_task(aio.call(module.forever)) for _ in range(100)]
        while await aio.call(module.log.count, "started") < 100:
            pass
        for task in tasks:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in found} == {asyncio.CancelledError}
        while await aio.call(module.log.count, "cleaned") < 100:
            pass
        assert await aio.call(module.add, 1, 2) == 3

    run(main())


def test_a_timeout_of_asyncio(module: Any) -> None:
    """It is a cancellation, too."""

    async def main() -> None:
        seconds = 0.1
        while not module.log:  # it had not begun
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await aio.call(module.forever)
            seconds *= 2
        assert await aio.call(module.plain, 1) == 1

    run(main())
    assert eventually(lambda: spawny.value(module.log) == ["started", "cleaned"])


def test_cancelling_a_plain_call_interrupts_it(module: Any, tmp_path: Path) -> None:
    """The event loop is not held up by that."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        plain = module.plain
        task = asyncio.create_task(aio.call(module.wait, str(fifo)))
        await asyncio.to_thread(lambda: fifo.open().close())  # until the call has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await aio.call(plain, 1) == 1

    run(main())


def test_cancelling_before_the_call_has_begun(module: Any, tmp_path: Path) -> None:
    """Then it never begins."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        append = module.log.append
        running = asyncio.create_task(aio.call(module.wait, str(fifo)))
        await asyncio.to_thread(lambda: fifo.open().close())
        queued = asyncio.create_task(aio.call(append, "never"))
        await asyncio.sleep(0)
        queued.cancel()
        running.cancel()
        await asyncio.wait([queued, running])
        assert queued.cancelled() and running.cancelled()

    run(main())
    assert spawny.value(module.log) == []


def test_the_event_loop_is_not_blocked(module: Any, tmp_path: Path) -> None:
    """While a daemon is in a call, others are awaited, and time goes on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        plain = module.plain
        running = asyncio.create_task(aio.call(module.wait, str(fifo)))
        await asyncio.to_thread(lambda: fifo.open().close())
        waiting = asyncio.create_task(aio.call(plain, 1))
        other = await aio.run_script(SCRIPT)
        assert await aio.call(other.add, 1, 2) == 3
        assert not running.done() and not waiting.done()
        running.cancel()
        assert await waiting == 1

    run(main())


def test_daemons_together(module: Any) -> None:
    """Calls of several daemons are awaited at once."""

    async def main() -> None:
        others = await asyncio.gather(*[aio.run_script(SCRIPT) for _ in range(2)])
        pids = await asyncio.gather(*[aio.call(each.pid) for each in (module, *others)])
        assert len(set(pids)) == 3
        sums = [aio.call(each.add, n, n) for n, each in enumerate((module, *others))]
        assert await asyncio.gather(*sums) == [0, 2, 4]

    run(main())


def test_the_death_of_the_daemon(module: Any) -> None:
    """Whoever waits has DaemonDied."""

    async def main() -> None:
        tasks = [asyncio.create_task(aio.call(module.forever)) for _ in range(20)]
        while await aio.call(module.log.count, "started") < 20:
            pass
        await asyncio.to_thread(kill, spawny.daemon(module).pid)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in found} == {spawny.DaemonDied}

    run(main())


def test_what_a_coroutine_leaves_behind_goes_on(module: Any) -> None:
    """A task that it has started runs on when it is over itself, as in any program."""

    async def main() -> None:
        await aio.call(module.in_background)

    run(main())
    assert eventually(lambda: spawny.value(module.log) == ["later"])


def test_a_coroutine_that_exits(module: Any) -> None:
    """SystemExit is raised here, as by an ordinary call; the daemon goes on."""

    async def main() -> None:
        with pytest.raises(SystemExit):
            await aio.call(module.leave)

    run(main())
    assert module.plain(1) == 1


def test_ordinary_calls_between_tasks(module: Any) -> None:
    """They are answered while coroutines wait, and coroutines go on while they come."""
    waiting = spawny.submit(module.forever)
    adding = spawny.submit(module.add, 1, 2)
    for n in range(100):
        assert module.plain(n) == n
    assert adding.result() == 3
    assert waiting.cancel()


def test_attach_and_value(module: Any) -> None:
    """Functions with the same names do the same."""

    async def main() -> None:
        named = await aio.run_object([1, 2], name="numbers")
        again = await aio.attach("numbers")
        assert await aio.value(again) == [1, 2]
        assert await aio.value("no proxy") == "no proxy"
        await asyncio.to_thread(named.terminate_daemon)
        wave = await aio.run_module("wave")
        assert await aio.value(wave.__name__) == "wave"

    run(main())


def test_the_end_of_the_script_cancels_what_it_awaits(tmp_path: Path) -> None:
    """asyncio.run does so, and the daemon is left, and ends."""
    with Script(
        """
        import asyncio, spawny
        from spawny import aio
        async def main():
            module = await aio.run_script("import asyncio\\nasync def forever():\\n"
                " await asyncio.Event().wait()")
            print("pid", spawny.daemon(module).pid)
            task = asyncio.create_task(aio.call(module.forever))
            await asyncio.sleep(0.1)
        asyncio.run(main())
        """
    ) as script:
        pid = int(script.until("pid").split()[1])
        begun = time.monotonic()
        assert script.end()[0] == 0
        assert time.monotonic() - begun < PATIENCE_SECONDS
    assert is_gone(pid)
