"""Pickled proxies: they reach the same object from wherever they are loaded."""

import multiprocessing
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import DaemonNotFound, StaleReference
from tests.end_to_end.processes import Script, eventually

pytestmark = pytest.mark.one_supervisor

SCRIPT = """
class Box:
    def __init__(self):
        self.items = []
    def add(self, item):
        self.items.append(item)
        return len(self.items)
box = Box()
numbers = [1, 2]
def boxes():
    import gc
    return sum(type(each) is Box for each in gc.get_objects())
"""

LOADER = """
    import pickle, sys
    p = pickle.loads(bytes.fromhex(sys.argv[1]))
    print(repr(p.add("from afar")), flush=True)
"""


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


def add_remotely(box: Any) -> Any:
    return box.add("child")


def test_the_same_process_has_the_same_proxy(m: Any) -> None:
    """One proxy per object, however it came here."""
    assert pickle.loads(pickle.dumps(m)) is m
    assert pickle.loads(pickle.dumps(m.box)) is m.box
    assert pickle.loads(pickle.dumps({"key": [m.numbers]}))["key"][0] == [1, 2]


def test_another_process_reaches_the_object(m: Any) -> None:
    """A script of its own, which has never heard of that daemon."""
    box = m.box
    with Script(LOADER, pickle.dumps(box).hex()) as other:
        assert other.line() == "1"
    assert list(box.items) == ["from afar"]


def test_arguments_of_multiprocessing(m: Any) -> None:
    """Proxies are arguments of a pool's tasks."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(add_remotely, (m.box,)) == 1
    assert list(m.box.items) == ["child"]


def test_a_method_can_be_pickled(m: Any) -> None:
    """It stays bound to the very object."""
    add = m.box.add
    assert pickle.loads(pickle.dumps(add))(1) == 1
    assert m.box.items == [1]


def test_an_object_that_was_released(home: Path) -> None:
    """A pickle holds no reference: it says so when the object is gone."""
    m = spawny.run_script(SCRIPT)
    pickled = pickle.dumps(m.Box())
    assert eventually(lambda: m.boxes() == 1)  # that of the module
    with pytest.raises(StaleReference, match="no object"):
        pickle.loads(pickled)
    m.terminate_daemon()


def test_a_daemon_that_was_restarted(home: Path) -> None:
    """The object is told to be gone, not mistaken for another; the root is the new one."""
    m = spawny.run_script(SCRIPT, name="again")
    root, box = pickle.dumps(m), pickle.dumps(m.box)
    spawny.daemon(m).restart()
    again = pickle.loads(root)
    assert again.numbers == [1, 2]
    with pytest.raises(StaleReference):
        pickle.loads(box)
    again.terminate_daemon()
    with pytest.raises(DaemonNotFound):
        pickle.loads(root)
