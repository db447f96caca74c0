"""Exceptions between a client and a real daemon, in both directions."""

import asyncio
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import RemoteError, RemoteTraceback
from spawny.client.failures import describe_exception
from spawny.kernel.failures import rebuild
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

# Importable at both ends: its folder is on the caller's path.
SHARED = """
class Shaped(Exception):
    def __init__(self, a, b):
        super().__init__("shaped of %s and %s" % (a, b))
        self.a, self.b = a, b

class Reduced(Exception):
    def __init__(self, code, *, detail):
        super().__init__(code)
        self.code, self.detail = code, detail
    def __reduce__(self):
        return make_reduced, (self.code, self.detail)

def make_reduced(code, detail):
    return Reduced(code, detail=detail)

class Slotted(OSError):
    __slots__ = ("extra",)
    def __init__(self, extra):
        super().__init__(5, "it broke", "file")
        self.extra = extra

class Unloadable:
    def __reduce__(self):
        return int, ("no number",)
    def __repr__(self):
        return "<something odd>"
"""

SCRIPT = """
import contextlib, os, sys, threading

class Odd(ValueError):
    def __init__(self, a, b):
        super().__init__("odd: %s %s" % (a, b))
        self.a = a
        self.lock = threading.Lock()
class Odder(Odd, KeyError): pass
class Disk(OSError): pass
class Decode(UnicodeDecodeError): pass
class Clash(Odd, UnicodeError): pass
class Quit(SystemExit): pass
class Said(Exception):
    def __str__(self): return "as it says"
    def __repr__(self): return "<Said so>"

def fail(kind, *args, **kwargs):
    raise kind(*args, **kwargs)
def fail_named(name, *args):
    raise globals()[name](*args)
def fail_with_notes():
    error = ValueError("noted")
    error.__notes__ = ["first", "second"]
    raise error
def fail_chained():
    try:
        raise KeyError("the first")
    except KeyError as error:
        raise LookupError("the second") from error
def fail_from_none():
    try:
        raise KeyError("the first")
    except KeyError:
        raise LookupError("the second") from None
def fail_with_lock():
    raise ValueError("locked", threading.Lock())
def run(code):
    exec(code, {})
def decode():
    return b"\\xff".decode("ascii")
def open_missing():
    open("/nowhere/at/all")
def parse():
    compile("1 +", "formula", "eval")
def leave(code):
    sys.exit(code)
def recurse(n):
    if n == 0:
        raise RecursionError("deep")
    return recurse_on(n - 1)
def recurse_on(n):
    return recurse(n)
def deep(n):
    sys.setrecursionlimit(30000)
    return recurse(n)

class Broken(Exception):
    pass
class BrokenText(Broken):
    def __str__(self): return str(self)
    def __repr__(self): raise KeyboardInterrupt
class BrokenReduce(Broken):
    def __reduce__(self): return self.__reduce__()
class BrokenDict(Broken):
    def __getattribute__(self, name):
        if name in ("args", "__dict__", "__str__"): raise SystemExit(name)
        return super().__getattribute__(name)

class Manager:
    suppresses = False
    def __enter__(self):
        return self
    def __exit__(self, kind, error, trace):
        self.saw = None if kind is None else (kind.__name__, str(error), error is sys.exc_info()[1])
        self.has_trace = trace is not None and trace is error.__traceback__
        if error is not None:
            import traceback
            self.text = "".join(traceback.format_exception(kind, error, trace))
        return "yes" if self.suppresses else None
manager = Manager()

class Reraising(Manager):
    def __exit__(self, kind, error, trace):
        raise error
class Replacing(Manager):
    def __exit__(self, kind, error, trace):
        raise LookupError("replaced") from error

@contextlib.contextmanager
def generated(seen):
    try:
        yield "inside"
    except KeyError as error:
        seen.append(type(error).__name__)
    finally:
        seen.append("left")
seen = []
def managed():
    return generated(seen)
"""


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


@pytest.fixture
def shared(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A module that the client and its daemons import."""
    (tmp_path / "shared_failures.py").write_text(SHARED)
    monkeypatch.syspath_prepend(tmp_path)
    import shared_failures

    return shared_failures


@pytest.fixture
def there(home: Path, interpreter: Interpreter, shared: Any) -> Iterator[Any]:
    """The script under every interpreter."""
    module = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    yield module
    module.terminate_daemon()


def raised(function: Any, *args: Any) -> BaseException:
    """What the call raises."""
    with pytest.raises(BaseException) as caught:
        function(*args)
    return caught.value


# --- out of the daemon ---


def test_a_constructor_that_does_not_match(there: Any, shared: Any) -> None:
    """An exception is rebuilt without its __init__, whose parameters seldom are its args."""
    error = raised(there.fail, shared.Shaped, 1, 2)
    assert type(error) is shared.Shaped
    assert str(error) == "shaped of 1 and 2"
    assert (error.a, error.b) == (1, 2)
    assert error.args == ("shaped of 1 and 2",)


def test_an_exception_that_pickles_itself(shared: Any, m: Any) -> None:
    """Its own __reduce__ is used."""
    m.run("import sys")
    error = raised(m.run, "from shared_failures import *; raise make_reduced(3, 'why')")
    assert type(error) is shared.Reduced
    assert (error.code, error.detail) == (3, "why")


def test_slots_and_fields_of_the_system(there: Any, shared: Any) -> None:
    """What exceptions keep in C, or in slots, is theirs here as well."""
    error: Any = raised(there.open_missing)
    assert type(error) is FileNotFoundError
    assert (error.errno, error.filename) == (2, "/nowhere/at/all")
    assert "/nowhere/at/all" in str(error)
    error = raised(there.fail, shared.Slotted, "more")
    assert (error.errno, error.strerror, error.filename) == (5, "it broke", "file")
    assert error.extra == "more"
    error = raised(there.decode)
    assert (error.encoding, error.object, error.start, error.end) == ("ascii", b"\xff", 0, 1)
    error = raised(there.parse)
    assert type(error) is SyntaxError
    assert (error.filename, error.lineno, error.text) == ("formula", 1, error.text)
    assert raised(there.fail, KeyError, "key").args == ("key",)
    assert str(raised(there.fail, KeyError, "key")) == "'key'"
    error = raised(there.fail, StopIteration, 7)
    assert error.value == 7
    error = raised(there.run, "import nothing_of_this_name")
    assert (type(error), error.name) == (ModuleNotFoundError, "nothing_of_this_name")


def test_the_exceptions_that_end_things(there: Any) -> None:
    """They arrive as what they are, and the daemon goes on."""
    error: Any = raised(there.leave, 3)
    assert type(error) is SystemExit
    assert error.code == 3
    for kind in (KeyboardInterrupt, GeneratorExit):
        assert type(raised(there.fail, kind)) is kind
    assert there.fail.__name__ == "fail"


def test_a_cancelled_task(m: Any) -> None:
    """Its exception is no Exception, here as there."""
    assert type(raised(m.fail, asyncio.CancelledError)) is asyncio.CancelledError


def test_a_class_that_does_not_import(there: Any) -> None:
    """A class of that name, of RemoteError and of the nearest bases that import."""
    error: Any = raised(there.fail_named, "Odd", 1, 2)
    assert type(error).__name__ == "Odd"
    assert isinstance(error, ValueError)
    assert isinstance(error, RemoteError)
    assert (str(error), error.args, error.a) == ("odd: 1 2", ("odd: 1 2",), 1)
    assert repr(error) == "Odd('odd: 1 2')" or repr(error) == "Odd('odd: 1 2',)"
    assert "lock" in repr(error.lock)
    assert error.type_name.endswith(".Odd")
    assert error.remote_message == "odd: 1 2"
    assert "in fail_named" in error.remote_traceback
    assert type(raised(there.fail_named, "Odd", 3, 4)) is type(error)
    odder = raised(there.fail_named, "Odder", 1, 2)
    assert isinstance(odder, ValueError)
    assert isinstance(odder, KeyError)
    said = raised(there.fail_named, "Said")
    assert (str(said), repr(said)) == ("as it says", "<Said so>")


def test_layouts_of_substitutes(there: Any) -> None:
    """Bases with a layout of their own keep their fields; of two that clash, one is left out."""
    disk: Any = raised(there.fail_named, "Disk", 28, "full", "file")
    assert isinstance(disk, OSError)
    assert isinstance(disk, RemoteError)
    assert (disk.errno, disk.filename) == (28, "file")
    decode: Any = raised(there.fail_named, "Decode", "ascii", b"\xff", 0, 1, "why")
    assert isinstance(decode, UnicodeDecodeError)
    assert (decode.start, decode.reason) == (0, "why")
    assert isinstance(raised(there.fail_named, "Clash", 1, 2), RemoteError)
    leave: Any = raised(there.fail_named, "Quit", 4)
    assert isinstance(leave, SystemExit)
    assert leave.code == 4


def test_a_substitute_can_be_pickled(m: Any) -> None:
    """To be handed on between processes of the application, say."""
    error: Any = pickle.loads(pickle.dumps(raised(m.fail_named, "Odd", 1, 2)))
    assert type(error).__name__ == "Odd"
    assert isinstance(error, RemoteError)
    assert isinstance(error, ValueError)
    assert (str(error), error.a) == ("odd: 1 2", 1)


def test_a_substitute_is_itself_again_at_home(m: Any) -> None:
    """Back in its daemon, the exception has its real class."""
    with m.manager:
        m.manager.suppresses = True
        m.fail_named("Odd", 1, 2)
    assert m.manager.saw[:2] == ("Odd", "odd: 1 2")


def test_what_cannot_travel_costs_itself(there: Any) -> None:
    """An argument that cannot be pickled is replaced by its repr; the class stays."""
    error = raised(there.fail_with_lock)
    assert type(error) is ValueError
    assert error.args[0] == "locked"
    assert "lock object at" in str(error)
    assert not repr(error).endswith("'\")")


def test_what_does_not_load_costs_itself(shared: Any, m: Any) -> None:
    """As does one that cannot be loaded here."""
    error = raised(m.run, "import shared_failures as s; raise ValueError(1, s.Unloadable())")
    assert type(error) is ValueError
    assert repr(error) == "ValueError(1, <something odd>)"


@pytest.mark.parametrize("name", ["BrokenText", "BrokenReduce", "BrokenDict"])
def test_exceptions_that_are_broken_themselves(there: Any, name: str) -> None:
    """Whatever an exception's own methods do, its name and its traceback arrive."""
    error = raised(there.fail_named, name)
    assert type(error).__name__ == name
    assert isinstance(error, RemoteError)
    assert there.seen == []


def test_the_traceback(there: Any) -> None:
    """With the lines of the script, chained as there, and without our own frames."""
    trace = str(raised(there.fail_chained).__cause__)
    assert isinstance(raised(there.fail_chained).__cause__, RemoteTraceback)
    assert 'raise LookupError("the second") from error' in trace
    assert "KeyError: 'the first'" in trace
    assert "direct cause" in trace
    assert "kernel" not in trace
    trace = str(raised(there.fail_from_none).__cause__)
    assert "the second" in trace
    assert "the first" not in trace


def test_a_deep_traceback_is_cut_in_its_middle(there: Any) -> None:
    """Its beginning, its end and what was raised are there; thousands of lines are not."""
    trace = str(raised(there.deep, 3_000).__cause__)
    lines = trace.splitlines()
    assert len(lines) < 500
    assert "in deep" in trace
    assert "lines left out" in trace
    assert lines[-1] == "RecursionError: deep"


def test_notes(there: Any) -> None:
    """They come along, whether or not the interpreter there knows of notes."""
    error: Any = raised(there.fail_with_notes)
    assert type(error) is ValueError
    assert error.__notes__ == ["first", "second"]
    assert "second" in "".join(traceback.format_exception(error))


def test_exception_groups(m: Any) -> None:
    """Groups keep their members, nested ones too; those without a class here are RemoteErrors."""
    code = """
import threading
class Mine(Exception): pass
inner = ExceptionGroup("inner", [KeyError("k"), Mine(threading.Lock())])
outer = ExceptionGroup("outer", [ValueError("v"), inner])
outer.add_note("noted")
raise outer
"""
    error: Any = raised(m.run, code)
    assert type(error) is ExceptionGroup
    assert (error.message, error.__notes__) == ("outer", ["noted"])
    assert [type(each).__name__ for each in error.exceptions] == ["ValueError", "ExceptionGroup"]
    assert [type(each).__name__ for each in error.exceptions[1].exceptions] == ["KeyError", "Mine"]
    assert isinstance(error.exceptions[1].exceptions[1], RemoteError)
    assert "Mine" in str(error.__cause__)
    matched, rest = error.split(KeyError)
    assert matched is not None
    assert rest is not None


def test_groups_and_classes_without_end(m: Any) -> None:
    """What cannot be told of an exception does not cost the daemon its life."""
    groups = """
error = ValueError("innermost")
for _ in range(2000):
    error = ExceptionGroup("group", [error])
raise error
"""
    error: Any = raised(m.run, groups)
    for depth in range(50):
        assert type(error) is ExceptionGroup, depth
        (error,) = error.exceptions
    assert "left out" in str(error.exceptions[0])
    classes = """
kind = LookupError
for number in range(900):
    kind = type("Kind%d" % number, (kind,), {})
raise kind("of long descent")
"""
    error = raised(m.run, classes)
    assert (type(error).__name__, str(error)) == ("Kind899", "of long descent")
    assert isinstance(error, RemoteError)
    nowhere = "raise eval(\"type('Nowhere', (KeyError,), {})('x')\", {'__builtins__': builtins})"
    error = raised(m.run, f"import builtins; builtins = vars(builtins).copy(); {nowhere}")
    assert type(error).__name__ == "Nowhere"


# --- into the daemon ---


class Local(KeyError):
    """Not known in any daemon."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)
        self.two = two


def test_with_sees_the_exception(there: Any, shared: Any) -> None:
    """As its real class, handled there, with a traceback and with the text of the one here."""
    error = shared.Shaped(1, 2)
    with pytest.raises(shared.Shaped) as caught, there.manager:
        raise error
    assert caught.value is error
    assert there.manager.saw == ("Shaped", "shaped of 1 and 2", True)
    assert there.manager.has_trace is True
    assert "raise error" in there.manager.text
    assert "test_with_sees_the_exception" in there.manager.text


def test_with_may_suppress(there: Any) -> None:
    """A truth value of any kind from __exit__ does."""
    there.manager.suppresses = True
    with there.manager:
        raise Local(1, 2)
    assert there.manager.saw[0] == "Local"
    assert there.manager.__exit__(None, None, None) == "yes"
    assert there.manager.saw is None


def test_with_of_what_cannot_travel(m: Any) -> None:
    """An exception that cannot be pickled is the nearest thing there, and itself here."""

    class Strange(ArithmeticError):
        def __reduce__(self) -> Any:
            raise RuntimeError

    error = Strange(lambda: None)
    with pytest.raises(Strange) as caught, m.manager:
        raise error
    assert caught.value is error
    assert m.manager.saw[0] == "Strange"
    assert "lambda" in m.manager.saw[1]


def test_with_raising_again(m: Any) -> None:
    """An __exit__ that raises the very exception lets the one here go on."""
    error = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, m.Reraising():
        raise error
    assert caught.value is error
    with pytest.raises(LookupError, match="replaced") as replaced, m.Replacing():
        raise error
    assert replaced.value.__context__ is error
    assert "mine" in str(replaced.value.__cause__)


def test_managers_made_of_generators(there: Any) -> None:
    """@contextmanager: it may handle the exception, or let it pass, and then it is the same."""
    with there.managed() as inside:
        assert inside == "inside"
        raise Local(1, 2)
    assert spawny.value(there.seen) == ["Local", "left"]
    error = ValueError(1)
    with pytest.raises(ValueError, match="1") as caught, there.managed():
        raise error
    assert caught.value is error
    assert error.__cause__ is None
    stop = StopIteration(1)
    with pytest.raises(StopIteration) as stopped, there.managed():
        raise stop
    assert stopped.value is stop


def test_with_of_an_exception_group(there: Any) -> None:
    """A daemon whose Python has no groups sees an exception of that name and text."""
    group = ExceptionGroup("several", [ValueError(1), Local(2, 3)])
    with pytest.raises(ExceptionGroup) as caught, there.manager:
        raise group
    assert caught.value is group
    assert there.manager.saw[:2] == ("ExceptionGroup", "several (2 sub-exceptions)")


def test_a_failure_is_rebuilt_as_told() -> None:
    """What is told of an exception is plain, and enough to make it again."""
    error = ExceptionGroup("both", [Local(1, 2), OSError(2, "no", "file")])
    error.add_note("noted")
    again: Any = rebuild(pickle.loads(pickle.dumps(describe_exception(error), 4)))
    assert type(again) is ExceptionGroup
    assert again.__notes__ == ["noted"]
    local, missing = again.exceptions
    assert (type(local), local.args, local.two) == (Local, (1,), 2)
    assert (type(missing), missing.filename) == (FileNotFoundError, "file")


def interrupted() -> None:
    raise KeyboardInterrupt  # as Ctrl-C does, wherever it meets the main thread


class Slow(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return interrupted, ()


def test_an_interrupt_while_one_is_rebuilt() -> None:
    """Is not lost, nor is the exception taken for one that cannot be rebuilt."""
    with pytest.raises(KeyboardInterrupt):
        rebuild(describe_exception(Slow()))


def test_a_class_made_in_a_function_comes_back_as_itself(home: Path) -> None:
    """It has no name to be found by, but travelled there by value, and is known again."""

    class Own(Exception):
        pass

    def fail() -> None:
        raise Own("mine", 3)

    module: Any = spawny.run_script("def call(function):\n    return function()\n")
    with pytest.raises(Own) as caught:
        module.call(fail)
    assert caught.value.args == ("mine", 3)
    module.terminate_daemon()
