"""A future that makes its condition when somebody waits: to others it is as any other."""

import asyncio
import concurrent.futures
import threading
from typing import Any

import pytest

from spawny.client.lazy_future import LazyFuture


def settled(result: Any = None, error: BaseException | None = None) -> LazyFuture:
    future = LazyFuture()
    assert future.begin()
    future.settle(result, error)
    return future


def test_what_is_over_before_somebody_looks() -> None:
    """Its result or exception is there, for whoever asks in whatever way."""
    future, failed = settled(1), settled(error=KeyError(2))
    assert future.done() and not future.running() and not future.cancelled()
    assert future.result() == future.result(0) == 1
    assert future.exception() is None
    with pytest.raises(KeyError):
        failed.result()
    assert isinstance(failed.exception(), KeyError)
    assert list(concurrent.futures.as_completed([future])) == [future]
    assert concurrent.futures.wait([future, failed]).not_done == set()
    heard: list[Any] = []
    future.add_done_callback(heard.append)
    assert heard == [future]
    assert not future.cancel()


def test_those_who_wait_hear_of_it() -> None:
    """By a callback, in `wait`, in `result`, and in an event loop."""
    future = LazyFuture()
    heard: list[Any] = []
    future.add_done_callback(heard.append)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(future.result), pool.submit(concurrent.futures.wait, [future])
        assert future.begin() and future.begin()
        assert future.running() and not future.cancel()
        future.settle("value")
        assert waiting[0].result() == "value"
        assert waiting[1].result().done == {future}
    assert heard == [future]

    async def wait() -> Any:
        loop = asyncio.get_running_loop()
        pending = LazyFuture()
        loop.call_soon(pending.settle, "later")
        return await asyncio.wrap_future(pending)

    assert asyncio.run(wait()) == "later"


def test_one_that_is_cancelled() -> None:
    """It does not begin, though it was looked at by nobody else."""
    future = LazyFuture()
    assert not future.done() and not future.cancelled()
    assert future.cancel()
    assert not future.begin()
    assert future.cancelled() and future.done()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


def test_a_result_that_takes_too_long() -> None:
    with pytest.raises(TimeoutError):
        LazyFuture().result(0)


def test_whoever_looks_while_it_ends() -> None:
    """Waits for nothing that was before."""
    for _ in range(300):
        future = LazyFuture()
        barrier = threading.Barrier(2)
        found = []

        def look(future: LazyFuture = future, barrier: Any = barrier, found: Any = found) -> None:
            barrier.wait()
            found.append(future.result(60))

        thread = threading.Thread(target=look)
        thread.start()
        barrier.wait()
        future.settle(7)
        thread.join()
        assert found == [7]


def test_it_has_no_other_attributes() -> None:
    """Asking for those that it lacks makes nothing."""
    with pytest.raises(AttributeError, match="nothing"):
        _ = LazyFuture().nothing
    assert not hasattr(settled(), "__deepcopy__")
