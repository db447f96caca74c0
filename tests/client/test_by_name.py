"""Functions, classes and modules that were looked up on the root, after their daemon's end."""

import asyncio
import gc
import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import DaemonDied, DaemonNotFound, StaleReference, aio
from spawny.client import background
from spawny.client.proxy import reference_of
from tests.end_to_end.processes import eventually, is_gone
from tests.interpreters import Interpreter

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
import functools, os, random
calls = []
def pid():
    "Whose it is."
    return os.getpid()
def append(path, text):
    with open(path, "a") as file:
        file.write(text + "\\n")
    return os.getpid()
@functools.lru_cache()
def cached(x):
    return x
def one(*args):
    return "one"
def two(*args):
    return "two"
current = one
def note(x):
    calls.append(x)
    return len(calls)
def apply(function, x):
    return function(x)
class Model:
    kinds = ["linear"]
    def __init__(self, factor):
        self.factor = factor
    def predict(self, x):
        return self.factor * x
    @classmethod
    def double(cls):
        return cls(2)
async def later(x):
    return x
def define():
    globals()["defined"] = lambda: "defined"
def rebind():
    globals()["pid"] = lambda: "rebound"
    globals()["current"] = two
def die():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Any]]:
    names: list[str] = []

    def start(python: str | None = None, **options: Any) -> Any:
        names.append(options.setdefault("name", "named"))
        return spawny.run_script(SCRIPT, python, **{"restart": "on-failure", **options})

    yield start
    for name in names:
        with suppress(DaemonNotFound):
            spawny.connect().stop(name)


def die(root: Any) -> None:
    with pytest.raises(DaemonDied):
        root.die()


def test_what_the_root_has_by_name_is_found_in_the_next_daemon(
    start: Callable[..., Any], interpreter: Interpreter
) -> None:
    """And in the one after that, by the same proxy, which is equal to what the name gives there."""
    root = start(interpreter.path)
    pid, model, system, getpid = root.pid, root.Model, root.os, root.os.getpid
    double, cached, randint = root.Model.double, root.cached, root.random.randint
    pids = [pid()]
    for _ in range(2):
        die(root)
        pids.append(pid())
        assert getpid() == system.getpid() == pids[-1]
        assert double().predict(2) == 4
        assert (cached(3), randint(7, 7)) == (3, 7)
        assert pid == root.pid
        assert hash(pid) == hash(root.pid)
        assert pid.__name__ == "pid"
        assert model(3).predict(2) == 6
        assert model.double().predict(2) == 4
        assert list(model.kinds) == ["linear"]
        assert isinstance(model(1), model)
    assert len(set(pids)) == 3


def test_objects_do_not_come_back(start: Callable[..., Any]) -> None:
    """What was made there, and what has a state, is gone."""
    root = start()
    root.note(1)
    calls, model, predict = root.calls, root.Model(2), root.Model.double().predict
    die(root)
    for use in (lambda: len(calls), lambda: model.predict(1), lambda: predict(1)):
        with pytest.raises(StaleReference, match="SIGKILL"):
            use()
    assert root.calls == []


def test_every_way_to_call(start: Callable[..., Any]) -> None:
    """The first thing that is asked of the next daemon, and as an argument."""
    root = start()
    note, later, apply = root.note, root.later, root.apply

    def in_batch() -> Any:
        with spawny.batch() as batch:
            future = batch.call(note, 1)
        return future.result()

    def without_an_answer() -> Any:
        spawny.oneway(note)(1)
        return len(root.calls)

    for use in (
        lambda: note(1),
        lambda: spawny.submit(note, 1).result(),
        lambda: spawny.submit(later, 1).result(),
        lambda: asyncio.run(aio.call(later, 1)),  # type: ignore[arg-type]
        lambda: spawny.value(spawny.ref(note)(1)),
        in_batch,
        without_an_answer,
        lambda: apply(note, 1),
    ):
        spawny.connect().restart("named")
        assert use() == 1


def test_an_object_as_the_root(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its methods are called in the next daemon; what it refers to is its state."""
    (tmp_path / "named_here.py").write_text(
        "class Root:\n    def __init__(self): self.function = len\n"
        "    def one(self): return 1\n    def die(self): import os; os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    definition = spawny.InstanceDefinition("named_here", "Root")
    root: Any = spawny.run_object(definition, name="named", restart="on-failure")
    function, one = root.function, root.one
    assert (function([1]), one()) == (1, 1)
    die(root)
    assert one() == 1
    with pytest.raises(StaleReference):
        function([1])
    spawny.connect().stop("named")


def test_a_name_that_is_not_there(start: Callable[..., Any]) -> None:
    """The next daemon is as its definition makes it."""
    root = start()
    root.define()
    defined = root.defined
    assert defined() == "defined"
    die(root)
    with pytest.raises(StaleReference, match=r"started anew, .* has not made 'defined'"):
        defined()


def test_two_names(start: Callable[..., Any]) -> None:
    """Of which nobody knows the right one: what they are bound to may have changed meanwhile."""
    root = start()
    root.rebind()
    was, two = root.current, root.two
    assert was is two
    assert two() == "two"
    die(root)
    with pytest.raises(StaleReference):
        two()
    assert root.current() == "one"


@pytest.mark.parametrize(
    ("use", "result"),
    [
        (lambda pid, model: pid.__doc__, "Whose it is."),
        (lambda pid, model: pid.__name__, "pid"),
        (lambda pid, model: "function pid" in repr(pid), True),
        (lambda pid, model: "function pid" in str(pid), True),
        (lambda pid, model: isinstance(hash(pid), int), True),
        (lambda pid, model: pid == pid, True),
        (lambda pid, model: "__call__" in dir(pid), True),
        (lambda pid, model: isinstance(3, model), False),
        (lambda pid, model: setattr(model, "new", 1), None),
        (lambda pid, model: spawny.value(model.kinds), ["linear"]),
        (lambda pid, model: model.double().factor, 2),
        (lambda pid, model: model(3).factor, 3),
    ],
)
def test_every_other_use(start: Callable[..., Any], use: Any, result: Any) -> None:
    """Whatever it is that is first asked of it there."""
    root = start()
    pid, model = root.pid, root.Model
    spawny.connect().restart("named")
    assert use(pid, model) == result


def test_pickles(start: Callable[..., Any]) -> None:
    """They are good as long as a daemon of that name runs, like those of the root."""
    root = start()
    pid = root.pid
    early = pickle.dumps(pid)
    assert pickle.loads(early) is pid
    die(root)
    late = pickle.loads(pickle.dumps(pid))
    assert late() == pid() == pickle.loads(early)()
    die(root)
    assert late() == pid() == pickle.loads(early)()


class Restarting:
    """An argument whose pickling takes so long that there is another daemon when it is done."""

    def __init__(self, root: Any) -> None:
        self.root = root

    def __reduce__(self) -> Any:
        if self.root is not None:
            root, self.root = self.root, None
            spawny.connect().restart("named")
            self.kept = [root.two, root.one, root.Model(1)]  # what has the numbers there
            assert self.kept[0](1) == "two"
        return int, (1,)


@pytest.mark.parametrize("oneway", [False, True])
def test_a_number_means_nothing_to_the_next_daemon(
    start: Callable[..., Any], tmp_path: Path, oneway: bool
) -> None:
    """However a call and the end of its daemon coincide: another function is not called."""
    root = start()
    one, model = root.one, root.Model(2)
    assert one(Restarting(root)) == "one"
    with pytest.raises(StaleReference):
        model.predict(Restarting(root))
    note = root.note
    if oneway:
        spawny.oneway(note)(Restarting(root))
    else:
        note(Restarting(root))
    assert root.calls == [1]


def test_a_late_word_of_an_end(start: Callable[..., Any]) -> None:
    """Is not taken for that of the next daemon."""
    root = start()
    session = reference_of(root).session
    before = session.run
    die(root)
    model = root.Model(2)
    assert session.run != before
    session.ended("was slow", before)  # type: ignore[union-attr]
    assert model.predict(1) == 2


def test_an_object_stays_what_it_is_while_its_daemon_lives(start: Callable[..., Any]) -> None:
    """The name is for the next daemon alone."""
    root = start()
    pid = root.pid
    before = pid()
    root.rebind()
    assert root.pid() == "rebound"
    assert pid() == before


def test_a_daemon_of_another_definition(start: Callable[..., Any]) -> None:
    """Its functions are others, though they have the same names."""
    root = start()
    pid = root.pid
    spawny.connect().stop("named")
    other = spawny.run_script("def pid(): return 'other'", name="named")
    with pytest.raises(StaleReference, match="another definition"):
        pid()
    assert other.pid() == "other"


def test_a_daemon_that_was_ended(start: Callable[..., Any]) -> None:
    """As with the root: the error says that there is none."""
    root = start()
    pid = root.pid
    spawny.connect().stop("named")
    with pytest.raises(DaemonNotFound):
        pid()
    unnamed: Any = spawny.run_script(SCRIPT)
    pid = unnamed.pid
    unnamed.terminate_daemon()
    with pytest.raises(StaleReference, match="terminate_daemon"):
        pid()
    assert "is gone" in repr(pid)


def test_it_keeps_the_next_daemon(home: Path) -> None:
    """A function is a proxy like any other: the daemon ends with the last one."""
    root: Any = spawny.run_script(SCRIPT, restart="on-failure")
    pid, later = root.pid, root.later
    before = pid()
    die(root)
    del root
    gc.collect()
    after = pid()
    assert after != before
    del later
    gc.collect()
    assert eventually(background.collected.empty)
    assert pid() == after
    del pid
    gc.collect()
    assert is_gone(after)


def test_a_forked_process_finds_it_too(start: Callable[..., Any]) -> None:
    """By the proxies that it has inherited, whether they are names by then or not."""
    root = start()
    pid, note = root.pid, root.note
    die(root)
    there = pid()
    child = os.fork()
    if not child:
        is_right = False
        try:
            is_right = pid() == there and note(1) == 1
        finally:
            os._exit(not is_right)
    assert os.waitpid(child, 0)[1] == 0
    assert note(1) == 2


def test_calls_across_recycling_are_all_made(start: Callable[..., Any], tmp_path: Path) -> None:
    """Of functions that were looked up before as of those that are looked up each time, at once and
    submitted, by many threads: none is lost, none is made twice."""
    root = start(max_calls=50)
    append, path = root.append, str(tmp_path / "made")
    texts = itertools.count()
    asked: list[str] = []

    def text() -> str:
        asked.append(str(next(texts)))
        return asked[-1]

    def held() -> int:
        return append(path, text())  # type: ignore[no-any-return]

    def looked_up() -> int:
        return root.append(path, text())  # type: ignore[no-any-return]

    def submitted() -> int:
        futures = [
            spawny.submit(append if n % 2 else root.append, path, text()) for n in range(100)
        ]
        return [each.result() for each in futures][-1]

    def use(call: Callable[[], int]) -> None:
        pids: set[int] = set()
        assert eventually(lambda: pids.add(call()) or len(pids) > 3)

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(use, call) for call in (held, looked_up, submitted)]:
            each.result()
    assert sorted(Path(path).read_text().split()) == sorted(asked)
