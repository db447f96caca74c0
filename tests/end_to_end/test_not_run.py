"""Calls that a daemon has not begun when it ends: made in the next one, or told apart."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny.client import session
from spawny.client.channel import open_socket
from spawny.client.proxy import reference_of
from tests.end_to_end.processes import is_gone, kill
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

COUNTING = """
import os, threading, time
class Counter:
    def __init__(self, path):
        self.path = path
    def note(self, text):
        with open(self.path, "a") as file:
            file.write(text + "\\n")
        return os.getpid()
    def hold(self):
        with open(self.path, "a") as file:
            file.write("holding\\n")
        while True:
            time.sleep(60)
    async def noted(self, text):
        return self.note(text)
    def other(self):
        return Other()
class Other:
    def __reduce__(self):
        raise TypeError("it stays")
    def pid(self):
        return os.getpid()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "counting_here.py").write_text(COUNTING)
    monkeypatch.syspath_prepend(tmp_path)
    return "counting_here"


@pytest.fixture
def start(home: Path, tmp_path: Path, module: str) -> Iterator[Callable[..., spawny.ObjectProxy]]:
    names = []

    def begin(python: str, name: str = "counter", **options: object) -> spawny.ObjectProxy:
        definition = spawny.InstanceDefinition(module, "Counter", str(tmp_path / "notes"))
        root = spawny.run_object(definition, python, name=name, **options)  # type: ignore[arg-type]
        names.append(name)
        return root

    yield begin
    for name in names:
        with suppress(spawny.DaemonNotFound):
            spawny.connect().stop(name)


def lines(tmp_path: Path) -> list[str]:
    return (tmp_path / "notes").read_text().splitlines()


def hold(root: spawny.ObjectProxy, tmp_path: Path, pool: ThreadPoolExecutor) -> object:
    """Have the daemon in a call that does not end, and know that it is."""
    (tmp_path / "notes").touch()
    future = pool.submit(root.hold)
    while "holding" not in lines(tmp_path):
        spawny.daemon(root).status()
    return future


def test_a_call_that_waits_is_made_in_the_restarted_daemon(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path, interpreter: Interpreter
) -> None:
    """The restart interrupts what runs; what has not begun runs once, in the next process."""
    root = start(interpreter.path)
    before = spawny.daemon(root).pid
    with ThreadPoolExecutor() as pool:
        held = hold(root, tmp_path, pool)
        waiting = [pool.submit(root.note, str(n)) for n in range(3)]
        while sum(len(each.sock.getpeername()) > 0 for each in _channels(root)) < 4:
            pass
        spawny.connect().restart("counter")
        with pytest.raises(spawny.DaemonDied, match="was ended while this ran"):
            held.result()  # type: ignore[attr-defined]
        pids = {each.result() for each in waiting}
    assert before not in pids
    assert len(pids) == 1
    assert sorted(lines(tmp_path)) == ["0", "1", "2", "holding"]


def test_many_submitted_calls_of_a_daemon_that_is_restarted(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path, interpreter: Interpreter
) -> None:
    """Each is made once, in order, or says that it was not; those for an object that is gone are
    not made for another that has its number."""
    root = start(interpreter.path)
    other, before = root.other(), spawny.daemon(root).pid
    notes = [spawny.submit(root.note, str(n)) for n in range(300)]
    held = spawny.submit(root.hold)
    others = []
    for n in range(300, 600):
        notes.append(spawny.submit(root.note, str(n)))
        others.append(spawny.submit(other.pid))
    (tmp_path / "notes").touch()
    while "holding" not in lines(tmp_path):
        spawny.daemon(root).status()
    spawny.connect().restart("counter")
    root.other()  # another object, with the number of the first
    assert isinstance(held.exception(), spawny.DaemonDied)
    assert {each.result() for each in notes[:300]} == {before}
    for future in others:
        assert isinstance(future.exception(), (spawny.StaleReference, spawny.DaemonDied))
    made = [str(n) for n, future in enumerate(notes) if future.exception() is None]
    assert [line for line in lines(tmp_path) if line != "holding"] == made


def _channels(root: spawny.ObjectProxy) -> list[object]:
    return [*reference_of(root).session._pool.open()]


def test_a_daemon_that_ends_while_it_is_attached_to_anew(
    start: Callable[..., spawny.ObjectProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even between its two connections: the call is made in the one after it."""
    root = start("3.11", restart="always")
    reference = reference_of(root).session
    first = root.note("0")
    killed: list[int] = []

    def open_after_a_death(path: str) -> object:
        if not killed:
            killed.append(reference.pid)
            kill(reference.pid)
        return open_socket(path)

    monkeypatch.setattr(session, "open_socket", open_after_a_death)
    spawny.connect().restart("counter")
    assert root.note("1") not in (first, *killed)
    assert killed


def test_no_call_is_lost_or_made_twice_over_restarts(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """Threads that call, in every shape, while the daemon is restarted again and again: each call
    that was answered ran once, each that was not may have run once, as its error says."""
    root = start("3.11")
    over = threading.Event()
    answered: list[str] = []
    doubtful: list[str] = []
    said: list[str] = []

    def call(worker: int) -> None:
        count = 0
        while not over.is_set():
            text = f"{worker}-{count}"
            count += 1
            try:
                if worker == 0:
                    with spawny.batch() as batch:
                        futures = [batch.call(root.note, f"{text}-{n}") for n in range(5)]
                    for n, future in enumerate(futures):
                        texts = f"{text}-{n}"
                        try:
                            future.result()
                            answered.append(texts)
                        except spawny.DaemonDied:
                            doubtful.append(texts)
                    continue
                if worker == 1:
                    spawny.submit(root.note, text).result()
                else:
                    root.note(text)
                answered.append(text)
            except spawny.DaemonDied as error:
                doubtful.append(text)
                said.append(str(error))

    with ThreadPoolExecutor() as pool:
        workers = [pool.submit(call, n) for n in range(4)]
        for _ in range(5):
            spawny.connect().restart("counter")
        over.set()
        for each in workers:
            each.result()
    assert all("was ended while this ran" in each for each in said)
    found = lines(tmp_path)
    assert len(found) == len(set(found))
    assert set(answered) <= set(found)
    assert set(found) <= {*answered, *doubtful}


def test_oneway_calls_are_made_once_over_recyclings(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path, interpreter: Interpreter
) -> None:
    """Nobody waits for them; none is lost between two processes, or made in both."""
    root = start(interpreter.path, max_calls=20)
    sent, pids = [], set()
    deadline = time.monotonic() + 60
    while len(pids) < 3 and time.monotonic() < deadline:
        for _ in range(9):
            sent.append(str(len(sent)))
            spawny.oneway(root.note)(sent[-1])
        sent.append(str(len(sent)))
        pids.add(root.note(sent[-1]))
    assert len(pids) == 3
    assert lines(tmp_path) == sent


def test_asyncio_calls_are_made_once_over_recyclings(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """Many at once, of functions and of coroutines; each has its answer."""
    root = start("3.11", max_calls=20)
    sent: list[str] = []
    pids: set[int] = set()

    async def one(text: str, is_coroutine: bool) -> None:
        sent.append(text)
        method = root.noted if is_coroutine else root.note
        pids.add(await spawny.aio.call(method, text))

    async def all_of_them() -> None:
        deadline = time.monotonic() + 60
        while len(pids) < 3 and time.monotonic() < deadline:
            texts = [str(len(sent) + n) for n in range(30)]
            await asyncio.gather(*(one(each, int(each) % 2 == 0) for each in texts))

    asyncio.run(all_of_them())
    assert len(pids) >= 3
    assert sorted(lines(tmp_path)) == sorted(sent)


def test_a_batch_that_is_cut_off_in_a_send_was_not_begun(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """The daemon reads nothing for want of time, the call is larger than what the system takes:
    neither it nor what comes after it runs, and the daemon serves on."""
    root = start("3.11")
    with ThreadPoolExecutor() as pool:
        held = hold(root, tmp_path, pool)
        batch = spawny.batch()
        not_begun = pytest.raises(spawny.CallTimeout, match="not begun")
        with not_begun, spawny.timeout(0.5), batch:
            futures = [batch.call(root.note, text) for text in ("x" * 8_000_000, "after")]
        for each in futures:
            with pytest.raises(spawny.CallTimeout):
                each.result()
        spawny.connect().interrupt("counter")
        with pytest.raises(KeyboardInterrupt):
            held.result()  # type: ignore[attr-defined]
    root.note("last")
    assert lines(tmp_path) == ["holding", "last"]


TILL = """
import os
def load(pid):
    from tests.end_to_end.processes import kill
    kill(pid)
    raise ValueError
class Receipt:
    "Loading it ends its daemon, and fails."
    def __reduce__(self):
        return load, (os.getpid(),)
def pay(path, callback=None):
    with open(path, "a") as file:
        file.write("paid\\n")
    return Receipt() if callback is None else callback(os.getpid())
class Till:
    @staticmethod
    def pay(path, callback=None):
        return pay(path, callback)
class Root:
    def pay(self, path, callback=None):
        return pay(path, callback)
"""


@pytest.mark.parametrize("what", ["function", "static method", "method of the root", "submitted"])
@pytest.mark.parametrize("when", ["in its callback", "when its result is loaded"])
def test_what_has_run_is_never_run_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, when: str
) -> None:
    """Though its daemon dies where the client has something to send: the result of a callback, or
    what it wants in place of a result that does not load."""
    (tmp_path / "till_of_the_test.py").write_text(TILL)
    monkeypatch.syspath_prepend(tmp_path)
    if what == "method of the root":
        definition = spawny.InstanceDefinition("till_of_the_test", "Root")
        root: Any = spawny.run_object(definition, name="counter", restart="on-failure")
    else:
        root = spawny.run_module("till_of_the_test", name="counter", restart="on-failure")
    pay = root.Till.pay if what == "static method" else root.pay
    if what == "submitted":
        pay = partial(lambda pay, *args: spawny.submit(pay, *args).result(), pay)
    arguments = [] if when == "when its result is loaded" else [spawny.callback(kill)]
    with pytest.raises(spawny.DaemonDied) as caught:
        pay(str(tmp_path / "paid"), *arguments)
    assert "not run" not in str(caught.value)
    assert (tmp_path / "paid").read_text() == "paid\n"
    spawny.connect().stop("counter")


def test_another_reference_is_stale_and_says_that_nothing_ran(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """A request on what the daemon held beside its root cannot be made in the next process."""
    root = start("3.11")
    other = root.other()
    with ThreadPoolExecutor() as pool:
        held = hold(root, tmp_path, pool)
        waiting = pool.submit(other.pid)
        while len(_channels(root)) < 2:
            pass
        spawny.connect().restart("counter")
        with pytest.raises(spawny.StaleReference):
            waiting.result()
        with pytest.raises(spawny.DaemonDied):
            held.result()  # type: ignore[attr-defined]


def test_a_daemon_that_does_not_come_back_says_that_the_call_was_not_run(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """`stop` is for good: DaemonDied, and nothing ran."""
    root = start("3.11")
    with ThreadPoolExecutor() as pool:
        held = hold(root, tmp_path, pool)
        waiting = pool.submit(root.note, "never")
        while len(_channels(root)) < 2:
            pass
        spawny.connect().stop("counter")
        with pytest.raises(spawny.DaemonDied, match="not run"):
            waiting.result()
        with pytest.raises(spawny.DaemonDied, match="was ended while this ran"):
            held.result()  # type: ignore[attr-defined]
    assert "never" not in lines(tmp_path)


def test_a_call_to_a_daemon_that_was_killed_is_made_in_the_next(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """Where nothing of a request was taken it did not run; the restart policy brings the next."""
    root = start("3.11", restart="on-failure")
    root.note("first")
    pid = spawny.daemon(root).pid
    kill(pid)
    assert root.note("second") != pid
    assert lines(tmp_path) == ["first", "second"]


def test_a_killed_daemon_that_is_not_restarted_died(
    start: Callable[..., spawny.ObjectProxy], tmp_path: Path
) -> None:
    """As before, with the word that nothing ran."""
    root = start("3.11")
    pid = spawny.daemon(root).pid
    root.note("first")
    kill(pid)
    with pytest.raises(spawny.DaemonDied, match=r"SIGKILL.*not run"):
        root.note("second")
    assert is_gone(pid)
