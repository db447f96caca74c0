"""Names in place of the numbers of objects."""

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from spawny.kernel.objects import Exports, UnknownReference
from spawny.kernel.recycling import is_on_root


@pytest.fixture
def exports() -> Exports:
    found = Exports()
    found.set_root(SimpleNamespace(one=1, inner=SimpleNamespace(two=2)))
    return found


@pytest.mark.parametrize(("name", "value"), [(b"one", 1), (b"inner.two", 2)])
def test_a_name_is_what_the_root_has_by_it(exports: Exports, name: bytes, value: int) -> None:
    """Now, and not when it was first asked for."""
    assert exports.get(name) == value
    exports.root.one = exports.root.inner.two = 3
    assert exports.get(name) == 3


@pytest.mark.parametrize("oid", [b"", b"two", b"inner.", b"inner.one", b"\xff", 1, -1, "one", None])
def test_what_there_is_not(exports: Exports, oid: Any) -> None:
    """Whatever a client may send in place of a number."""
    with pytest.raises(UnknownReference):
        exports.get(oid)


@pytest.mark.parametrize("oid", [b"one", 5])
def test_an_export_has_a_number(exports: Exports, oid: Any) -> None:
    """What is kept of an iterator is kept by that."""
    with pytest.raises(UnknownReference):
        exports.export(oid)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    "rest", [(), ("name",), ((), {}), ("name", (), {}), ("name", ("x" * 100_000,), {})]
)
def test_what_is_for_the_next_daemon_too(rest: tuple[Any, ...], protocol: int) -> None:
    """Is told by how the pickle of a request begins; of what this daemon alone has, by no other."""
    for oid in (0, b"one", b"x" * 300):
        assert is_on_root(pickle.dumps((oid, *rest), protocol))
    for oid in (1, 255, 256, 70_000, 2**40, -1):
        assert not is_on_root(pickle.dumps((oid, *rest), protocol))
