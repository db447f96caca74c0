"""What acts as a list, a tuple, a dict and a set: proxies of spawny's, and its peers.

Each is a context manager that gives a function `make(name)`, as `cpython.suites` wants it: a class
whose constructor gives the proxy, and from which the tests can inherit.
"""

import builtins
import collections
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import spawny
from spawny import ObjectProxy

Make = Callable[[str], Any]

# Proxies of a class of its own, since a plain set takes none of the attributes that one test sets.
SCRIPT = """
list, tuple, dict = list, tuple, dict

class set(set):
    pass
"""


class Set(set):  # type: ignore[type-arg]
    """The same for the others."""


class FromKeys:
    """A proxy has no class methods of its own; this is the one of `collections.UserDict`."""

    __slots__ = ()
    fromkeys = classmethod(collections.UserDict.__dict__["fromkeys"].__func__)


def spawny_types(module: Any) -> Make:
    """Constructors of real objects in the daemon of this module."""
    return lambda name: _spawny_type(spawny.ref(getattr(module, name)), name)


def _spawny_type(construct: Callable[..., Any], name: str) -> Any:
    proxy_class: Any = type(construct())
    assert issubclass(proxy_class, ObjectProxy)
    reference = ObjectProxy.__dict__["_spawny_reference"]

    class Remote(proxy_class, FromKeys):  # type: ignore[misc]
        """Gives the proxy itself. What inherits from it adds to the proxy, as the tests do."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            proxy = construct(*args, **kwargs)
            assert issubclass(type(proxy), ObjectProxy)
            if cls is Remote:
                return proxy
            derived = object.__new__(cls)
            reference.__set__(derived, reference.__get__(proxy))
            object.__setattr__(derived, "_proxy", proxy)  # which keeps the remote object
            return derived

        def __getattribute__(self, attribute: str) -> Any:
            here = ("__class__", "fromkeys")
            ask = object if attribute in here else proxy_class
            return ask.__getattribute__(self, attribute)

    Remote.__name__ = name
    return Remote


@contextmanager
def spawny_candidate() -> Iterator[Make]:
    module: Any = spawny.run_script(SCRIPT)
    yield spawny_types(module)
    module.terminate_daemon()


@contextmanager
def builtin_candidate() -> Iterator[Make]:
    """No proxies: what can be reached at all."""
    yield lambda name: Set if name == "set" else getattr(builtins, name)


@contextmanager
def wrapt_candidate() -> Iterator[Make]:
    """Proxies in one process, with nothing in between."""
    import wrapt

    def make(name: str) -> Any:
        construct: Any = Set if name == "set" else getattr(builtins, name)

        class Wrapped(FromKeys, wrapt.ObjectProxy):  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(construct(*args, **kwargs))

        return Wrapped

    yield make


@contextmanager
def rpyc_candidate() -> Iterator[Make]:
    import rpyc

    connection = rpyc.classic.connect_multiprocess()

    def make(name: str) -> Any:
        construct = getattr(connection.builtins, name)

        class Remote(FromKeys):
            def __new__(cls, *args: Any, **kwargs: Any) -> Any:
                return construct(*args, **kwargs)

        return Remote

    yield make
    connection.close()


@contextmanager
def multiprocessing_candidate() -> Iterator[Make]:
    with multiprocessing.get_context("spawn").Manager() as manager:

        def make(name: str) -> Any:
            construct = getattr(manager, name, None)
            if construct is None:
                return None

            class Remote(FromKeys):
                def __new__(cls, *args: Any, **kwargs: Any) -> Any:
                    return construct(*args, **kwargs)

            return Remote

        yield make
