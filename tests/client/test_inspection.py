"""Proxies under inspection: what it shows, and how many round trips it takes."""

import asyncio
import gc
import inspect
import io
import pydoc
import rlcompleter
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import ObjectProxy
from spawny.client.channel import Channel
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = '''
"""A module to look at."""
import functools

class Base:
    """What is below."""
    def inherited(self):
        """From below."""

class Vector(Base):
    """Two numbers."""
    scale = 1
    def __init__(self, x, y=0):
        self.x, self.y = x, y
    def length(self, power=2, *, unit="m"):
        """How long it is."""
        return (self.x ** power + self.y ** power) ** (1 / power)
    @classmethod
    def unit(cls, dimension):
        """Of length one."""
    @staticmethod
    def zero(kind=None):
        """Of length nothing."""
    @property
    def norm(self):
        """The same, as a property."""
        return self.length()
    def __call__(self, factor):
        """Scale it."""

class Bare:
    def method(self):
        pass

def plain(a, b: int, *rest, key: "str" = "k", where=Vector, **more) -> Vector:
    """A plain function."""
    # with a comment
    return a

@functools.wraps(plain)
def wrapper(*args, **kwargs):
    return plain(*args, **kwargs)

async def coroutine():
    pass

def generator():
    yield 1

numbers = [3, 1, 2]
text = "hello"
integer = 7
vector = Vector(3, 4)
bare = Bare()
builtin = len

class Ambiguous:
    """Neither true nor false, as arrays are."""
    def __bool__(self):
        raise ValueError("it is ambiguous")
    def method(self, x):
        pass

method_of_ambiguous = Ambiguous().method
ambiguously_annotated = Bare()
ambiguously_annotated.__annotations__ = type("Odd", (), {"__eq__": lambda *_: Ambiguous()})()

def change_after(callback):
    callback()
    vector.late = 1
'''


class Trips:
    """Counts the round trips of this process."""

    def __init__(self) -> None:
        self.count = 0

    def of(self, action: Callable[[], Any]) -> int:
        before = self.count
        action()
        return self.count - before


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    """Every exchange of a frame for its answer is counted; it goes its way all the same."""
    trips, exchange = Trips(), Channel.exchange

    def counted(self: Channel, *args: Any, **kwargs: Any) -> Any:
        trips.count += 1
        return exchange(self, *args, **kwargs)

    monkeypatch.setattr(Channel, "exchange", counted)
    return trips


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


def help_text(thing: Any) -> str:
    shown = io.StringIO()
    pydoc.Helper(output=shown)(thing)  # what help() is
    return pydoc.plain(shown.getvalue())


# --- round trips --------------------------------------------------------------------------------


def test_a_method_call_is_one_round_trip(m: Any, trips: Trips) -> None:
    """So is a call of a function, an attribute and an operator."""
    vector, plain, numbers = m.vector, m.plain, m.numbers
    assert trips.of(lambda: vector.length()) == 1
    assert trips.of(lambda: plain(1, 2)) == 1
    assert trips.of(lambda: vector.x) == 1
    assert trips.of(lambda: m.numbers) == 1
    assert trips.of(lambda: numbers == [3, 1, 2]) == 1
    assert trips.of(lambda: [0] + numbers) == 1  # noqa: RUF005
    assert trips.of(lambda: numbers.__add__([1])) == 1


def inspections(proxy: Any, method: str) -> list[Callable[[], Any]]:
    return [
        lambda: dir(proxy),
        lambda: inspect.signature(getattr(proxy, method)),
        lambda: callable(proxy),
        lambda: callable(getattr(proxy, method)),
        lambda: help_text(getattr(proxy, method)),
        lambda: getattr(proxy, method).__doc__,
        lambda: help_text(proxy),
        lambda: inspect.iscoroutinefunction(getattr(proxy, method)),
        lambda: dir(getattr(proxy, method)),
        lambda: hasattr(proxy, "__wrapped__"),
        lambda: hasattr(getattr(proxy, method), "__wrapped__"),
    ]


@pytest.mark.parametrize(
    ("name", "method"), [("vector", "length"), ("bare", "method"), ("numbers", "append")]
)
def test_repeated_inspection_takes_no_round_trip(
    m: Any, trips: Trips, name: str, method: str
) -> None:
    """What was asked once is known until something may have changed it."""
    proxy = getattr(m, name)
    inspecting = inspections(proxy, method)
    assert trips.of(lambda: [each() for each in inspecting]) <= 3
    assert trips.of(lambda: [each() for each in inspecting]) == 0


def test_repeated_inspection_of_functions_and_classes(m: Any, trips: Trips) -> None:
    """Of what a module holds, as of methods."""
    for proxy in (m.plain, m.wrapper, m.coroutine, m.Vector, m.builtin):
        inspecting: list[Callable[[], Any]] = [
            lambda p=proxy: dir(p),  # type: ignore[misc]
            lambda p=proxy: inspect.signature(p),  # type: ignore[misc]
            lambda p=proxy: help_text(p),  # type: ignore[misc]
            lambda p=proxy: inspect.iscoroutinefunction(p),  # type: ignore[misc]
            lambda p=proxy: inspect.unwrap(p),  # type: ignore[misc]
        ]
        trips.of(lambda todo=inspecting: [each() for each in todo])  # type: ignore[misc]
        assert trips.of(lambda todo=inspecting: [each() for each in todo]) == 0  # type: ignore[misc]


def test_a_first_signature_is_one_round_trip(m: Any, trips: Trips) -> None:
    """Of a method, and of what is at hand."""
    vector, plain, cls = m.vector, m.plain, m.Vector
    assert trips.of(lambda: inspect.signature(vector.length)) == 1
    assert trips.of(lambda: inspect.signature(plain)) == 1
    assert trips.of(lambda: inspect.signature(cls)) == 1
    assert trips.of(lambda: dir(m)) == 1


def test_types_are_told_without_a_round_trip(m: Any, trips: Trips) -> None:
    """isinstance, `__class__`, callable, and special attributes that a type surely lacks."""
    numbers, text, vector, plain = m.numbers, m.text, m.vector, m.plain

    def look() -> None:
        for each in (numbers, text, vector, plain, vector.length):
            isinstance(each, (int, bytes, dict, Iterator))
            each.__class__
            callable(each)
        for each in (numbers, text, vector):
            for name in ("__wrapped__", "__signature__", "__foo__", "__array__", "__path__"):
                if each is not vector or name != "__signature__":
                    assert not hasattr(each, name)
            assert hasattr(each, "__sizeof__")
        for each in (numbers, text):
            assert not hasattr(each, "_ipython_canary_method_should_not_exist_")
            assert not hasattr(each, "_repr_html_")

    assert trips.of(look) == 0


def test_a_scan_of_all_objects_storms_nobody(m: Any, trips: Trips) -> None:
    """As debuggers, profilers and leak detectors scan: a few round trips, then none."""
    kept = [m, m.numbers, m.text, m.integer, m.vector, m.bare, m.plain, m.Vector, m.builtin]
    names = ["__wrapped__", "__signature__", "__array__", "__foo__", "__abstractmethods__"]

    def scan() -> None:
        for each in gc.get_objects():
            if issubclass(type(each), ObjectProxy):
                isinstance(each, dict)
                each.__class__
                for name in names:
                    hasattr(each, name)

    assert trips.of(scan) <= 2 * len(kept)
    assert trips.of(scan) == 0
    assert kept


def test_ipython_probes_cost_one_round_trip(m: Any, trips: Trips) -> None:
    """Its dozen of `_repr_html_` and the like are answered from what the first brought."""
    vector = m.vector
    names = ["_ipython_canary_method_should_not_exist_", "_ipython_display_", "_repr_html_"]
    names += ["_repr_mimebundle_", "_repr_svg_", "_repr_png_", "_repr_pdf_", "_repr_latex_"]
    assert trips.of(lambda: [hasattr(vector, name) for name in names]) == 1
    assert not hasattr(vector, "_repr_html_")


def test_what_may_have_changed_is_asked_anew(m: Any) -> None:
    """After any other request: attributes come and go."""
    assert "added" not in dir(m)
    m.added = 1
    assert "added" in dir(m)
    vector = m.vector
    assert "z" not in dir(vector)
    vector.__init__(1, 2)
    vector.z = 3
    assert "z" in dir(vector)
    assert not hasattr(vector, "_special_")
    vector._special_ = 5
    assert vector._special_ == 5
    vector.__wrapped__ = 6
    assert vector.__wrapped__ == 6
    plain = m.plain
    assert plain.__doc__ == "A plain function."
    plain.__doc__ = "Changed."
    assert plain.__doc__ == "Changed."
    assert "Changed." in help_text(plain)


def test_what_a_callback_saw_may_change_after_it(m: Any) -> None:
    """The call that called back goes on."""
    vector = m.vector
    seen: list[bool] = []
    m.change_after(spawny.callback(lambda: seen.append("late" in dir(vector))))
    assert seen == [False]
    assert "late" in dir(vector)


def test_a_scan_meets_proxies_of_the_dead(m: Any) -> None:
    """They have no special attributes any more; what else is asked of them raises as ever."""
    vector = m.vector
    m.terminate_daemon()
    assert not hasattr(vector, "__wrapped__")
    assert not hasattr(vector, "_repr_html_")
    assert not hasattr(m, "__path__")
    with pytest.raises(spawny.StaleReference):
        vector.x


def test_backwards_takes_few_round_trips(m: Any, trips: Trips) -> None:
    """In chunks, as forwards; of a sequence without a `__reversed__` of its own, too."""
    numbers, text = m.numbers, m.text
    assert list(reversed(numbers)) == [2, 1, 3]
    assert "".join(reversed(text)) == "olleh"
    for proxy in (numbers, text):
        many = spawny.ref(proxy.__mul__)(200)
        assert trips.of(lambda p=many: list(reversed(p))) <= 8  # type: ignore[misc]
    with pytest.raises(TypeError, match="not reversible"):
        reversed(m.integer)


# --- what is shown ------------------------------------------------------------------------------


def test_signatures(m: Any) -> None:
    """With defaults and annotations; what cannot travel is there as its text."""
    name = m.Vector.__module__
    expected = (
        f"(a, b: int, *rest, key: 'str' = 'k', where=<class '{name}.Vector'>, **more)"
        f" -> {name}.Vector"
    )
    assert str(inspect.signature(m.plain)) == expected
    assert str(inspect.signature(m.wrapper)) == expected
    assert inspect.signature(m.plain).parameters["b"].annotation is int
    assert str(inspect.signature(m.vector.length)) == "(power=2, *, unit='m')"
    assert str(inspect.signature(m.Vector.length)) == "(self, power=2, *, unit='m')"
    assert str(inspect.signature(m.Vector.unit)) == "(dimension)"
    assert str(inspect.signature(m.vector.unit)) == "(dimension)"
    assert str(inspect.signature(m.vector.zero)) == "(kind=None)"
    assert str(inspect.signature(m.Vector)) == "(x, y=0)"
    assert str(inspect.signature(m.vector)) == "(factor)"
    assert str(inspect.signature(m.builtin)) == "(obj, /)"
    assert str(inspect.signature(m.numbers.append)) == "(object, /)"
    assert inspect.signature(m.plain).bind(1, 2).arguments == {"a": 1, "b": 2}
    with pytest.raises(TypeError, match="not a callable"):
        inspect.signature(m.bare)


def test_inspection_under_every_interpreter(interpreter: Interpreter) -> None:
    """What an old daemon tells is shown by a new client, and its kinds are known here."""
    module: Any = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    name = module.Vector.__module__
    assert str(inspect.signature(module.plain)).endswith(f" -> {name}.Vector")
    assert str(inspect.signature(module.vector.length)) == "(power=2, *, unit='m')"
    assert str(inspect.signature(module.vector.unit)) == "(dimension)"
    assert str(inspect.signature(module.Vector)) == "(x, y=0)"
    assert inspect.ismethod(module.vector.length)
    assert inspect.isfunction(module.vector.zero)
    assert inspect.iscoroutinefunction(module.coroutine)
    assert inspect.isgeneratorfunction(module.generator)
    assert "How long it is." in help_text(module.vector.length)
    assert "class Vector(Base)" in help_text(module.vector).replace(f"{name}.", "")
    assert "# with a comment" in inspect.getsource(module.plain)
    assert {"x", "length", "__init__"} <= set(dir(module.vector))
    assert isinstance(module.numbers, list)
    assert not hasattr(module.numbers, "__wrapped__")
    assert module.numbers.__contains__(3) is True
    module.terminate_daemon()


def test_kinds(m: Any) -> None:
    """`inspect` and `callable` tell of proxies what they tell of the objects."""
    assert inspect.isfunction(m.plain) and not inspect.ismethod(m.plain)
    assert inspect.ismethod(m.vector.length) and not inspect.isfunction(m.vector.length)
    assert inspect.isfunction(m.vector.zero)
    assert inspect.ismethod(m.vector.unit)
    assert inspect.isbuiltin(m.builtin) and inspect.isbuiltin(m.numbers.append)
    assert inspect.ismodule(m)
    assert inspect.isroutine(m.plain) and inspect.isroutine(m.numbers.append)
    assert inspect.iscoroutinefunction(m.coroutine)
    assert asyncio.iscoroutinefunction(m.coroutine)
    assert not inspect.iscoroutinefunction(m.plain)
    assert not inspect.iscoroutinefunction(m.vector.length)
    assert inspect.isgeneratorfunction(m.generator)
    assert inspect.isgenerator(spawny.ref(m.generator)())
    assert callable(m.vector) and callable(m.Vector) and not callable(m.bare)
    assert m.vector.length.__self__ is m.vector
    assert m.vector.unit.__self__ is m.Vector
    assert m.vector.length.__func__ is m.Vector.length
    assert m.vector.length.__qualname__ == "Vector.length"


def test_what_is_neither_true_nor_false_is_inspected(m: Any) -> None:
    """Nobody asks an object for its truth that was asked for what it is like."""
    assert str(inspect.signature(m.method_of_ambiguous)) == "(x)"
    assert "method" in dir(m.method_of_ambiguous.__self__)
    assert "method" in dir(m.ambiguously_annotated)


def test_help_shows_the_class(m: Any) -> None:
    """Of a class, and of an instance as locally: docs, methods, properties, what is inherited."""
    for thing in (m.Vector, m.vector):
        text = help_text(thing)
        for says in (
            "class Vector(Base)",
            "Two numbers.",
            "length(self, power=2, *, unit='m')",
            "How long it is.",
            "unit(dimension)",
            "zero(kind=None)",
            "The same, as a property.",
            "Methods inherited from Base:",
            "From below.",
            "scale = 1",
        ):
            assert says in text.replace(f"{m.Vector.__module__}.", "")
    assert "class Bare" in help_text(m.bare)
    assert "append(self, object, /)" in help_text(m.numbers)
    assert not hasattr(m.vector, "__origin__")  # that is between help() and us


def test_sources(m: Any) -> None:
    """`inspect.getsource` has the text of a script, which is in no file."""
    source = inspect.getsource(m.plain)
    assert source.startswith("def plain(a, b: int")
    assert source.endswith("return a\n")
    assert inspect.getsource(m.vector.length).lstrip().startswith("def length(self")
    assert inspect.getsource(m.Vector.length).lstrip().startswith("def length(self")


def test_tab_completion(m: Any) -> None:
    """In the plain prompt."""
    complete = rlcompleter.Completer({"m": m, "vector": m.vector}).complete
    assert complete("vector.len", 0) == "vector.length("
    assert complete("m.numb", 0) == "m.numbers"
    assert complete("m.pla", 0) == "m.plain("


def test_tab_completion_in_ipython(m: Any) -> None:
    """By names, as it completes what it knows nothing of."""
    core = pytest.importorskip("IPython.core.interactiveshell", reason="IPython is not installed")
    shell = core.InteractiveShell()
    shell.user_ns["vector"] = m.vector
    with shell.builtin_trap:
        shell.Completer.use_jedi = False  # as its users do: it completes no object at a prompt
        assert shell.complete(None, "vector.len", len("vector.len"))[1] == [".length"]
        assert shell.display_formatter.format(m.vector)[0]["text/plain"].startswith("<")


def test_static_inspection_runs_nothing(m: Any, trips: Trips) -> None:
    """What goes past `__getattribute__` sees a proxy, and asks nobody."""
    vector = m.vector
    assert trips.of(lambda: inspect.getattr_static(vector, "length", None)) == 0
    assert trips.of(lambda: sys.getsizeof(vector)) == 0
    assert trips.of(lambda: id(vector)) == 0
