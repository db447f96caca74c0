"""Proxies of real objects in a real daemon."""

import copy
import gc
import inspect
import operator
import pickle
import pydoc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import ObjectProxy
from tests.end_to_end.processes import eventually, is_gone

pytestmark = pytest.mark.usefixtures("home")

SCRIPT = '''
"""A module to play with."""
import threading

class Vector:
    """Two numbers."""
    scale = 1
    def __init__(self, x, y):
        self.x, self.y = x, y
    def __add__(self, other):
        return Vector(self.x + other.x, self.y + other.y)
    def __iadd__(self, other):
        self.x += other.x
        self.y += other.y
        return self
    def __eq__(self, other):
        return isinstance(other, Vector) and (self.x, self.y) == (other.x, other.y)
    def __repr__(self):
        return "Vector(%r, %r)" % (self.x, self.y)
    def __call__(self, factor):
        return Vector(self.x * factor, self.y * factor)
    def __enter__(self):
        self.entered = True
        return self
    def __exit__(self, kind, error, trace):
        self.left_by = kind and kind.__name__
        return kind is KeyError
    def same(self):
        return self
    def length(self):
        """How long it is."""
        return (self.x ** 2 + self.y ** 2) ** 0.5

class Odd(Exception):
    def __init__(self, a, b):
        super().__init__("odd: %s %s" % (a, b))

numbers = [3, 1, 2]
mapping = {"a": 1}
text = "hello"
integer = 7
pi = 3.25
empty = []
flag = False
vector = Vector(3, 4)
lock = threading.Lock()

def identity(x):
    return x
def is_same(a, b):
    return a is b
def generate(n):
    for i in range(n):
        yield i
def boxes():
    return [Vector(1, 2), Vector(3, 4)]
def locks():
    return [threading.Lock()]
def fail(kind, *args):
    raise kind(*args)
def odd():
    raise Odd(1, 2)
def exported():
    import gc, sys
    kernel = sys.modules["_spawny_kernel.objects"]
    gc.collect()
    return [len(each) for each in gc.get_objects() if type(each) is kernel.Exports][0]
'''


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()  # pytest holds on to a fixture's value


def test_first_level_is_proxies_below_is_values(m: Any) -> None:
    """As documented: variables of the module are proxies, their attributes and results values."""
    assert isinstance(m.text, ObjectProxy)
    assert isinstance(m.integer, ObjectProxy)
    assert type(m.vector.x) is int
    assert type(m.identity([1, 2])) is list
    assert isinstance(m.identity, ObjectProxy)


def test_isinstance_of_both(m: Any) -> None:
    """A proxy of a str is a str to isinstance, and an ObjectProxy."""
    assert isinstance(m.text, str)
    assert isinstance(m.numbers, list)
    assert not isinstance(m.numbers, str)
    match m.numbers:
        case [first, *_]:
            assert first == 3
        case _:
            pytest.fail("a list does not match a sequence pattern")


@pytest.mark.parametrize(
    ("name", "operate"),
    [
        ("integer", lambda x: x + 1),
        ("integer", lambda x: 1 + x),
        ("integer", lambda x: 1 - x),
        ("integer", lambda x: 2**x),
        ("integer", lambda x: pow(x, 2, 5)),
        ("integer", lambda x: divmod(x, 2)),
        ("integer", lambda x: divmod(20, x)),
        ("integer", lambda x: -x),
        ("integer", lambda x: ~x),
        ("integer", lambda x: x << 2 | 1),
        ("integer", lambda x: "abcdefgh"[x]),
        ("integer", lambda x: range(x)),
        ("integer", int),
        ("integer", float),
        ("integer", hash),
        ("integer", lambda x: f"{x:04d}"),
        ("pi", round),
        ("pi", lambda x: round(x, 1)),
        ("pi", lambda x: x // 1),
        ("text", len),
        ("text", lambda x: x + " you"),
        ("text", lambda x: "oh " + x),
        ("text", lambda x: x * 2),
        ("text", lambda x: x[1:3]),
        ("text", lambda x: "ell" in x),
        ("text", lambda x: x.upper()),
        ("text", str),
        ("text", repr),
        ("text", lambda x: f"{x:>10}"),
        ("text", lambda x: x < "world"),
        ("text", list),
        ("text", lambda x: "".join(reversed(x))),
        ("numbers", sorted),
        ("numbers", lambda x: [0, *x]),
        ("numbers", lambda x: operator.add([0], x)),
        ("numbers", lambda x: operator.add(x, [0])),
        ("numbers", lambda x: x == [3, 1, 2]),
        ("numbers", lambda x: operator.eq([3, 1, 2], x)),
        ("numbers", lambda x: x != [3]),
        ("numbers", lambda x: 2 * x),
        ("numbers", sum),
        ("numbers", max),
        ("numbers", lambda x: list(zip(x, x, strict=True))),
        ("numbers", lambda x: x.index(2)),
        ("mapping", dict),
        ("mapping", lambda x: {**x}),
        ("mapping", lambda x: x | {"b": 2}),
        ("mapping", lambda x: list(x.items())),
        ("empty", bool),
        ("flag", bool),
        ("flag", lambda x: "yes" if x else "no"),
        ("numbers", operator.length_hint),
        ("numbers", callable),
        ("identity", callable),
    ],
)
def test_behaves_as_the_object(m: Any, name: str, operate: Any) -> None:
    """What Python's own operators and functions make of the proxy and of the object is the same."""
    local: dict[str, Any] = {}
    exec(SCRIPT, local)
    expected, found = operate(local[name]), operate(getattr(m, name))
    assert found == expected
    assert type(found) is type(expected)


def test_what_the_type_lacks_the_proxy_lacks(m: Any) -> None:
    """TypeErrors as for the object, raised here or there."""
    with pytest.raises(TypeError):
        len(m.integer)
    with pytest.raises(TypeError):
        iter(m.integer)
    with pytest.raises(TypeError):
        hash(m.numbers)
    with pytest.raises(TypeError):
        m.text()
    with pytest.raises(TypeError, match="unsupported operand"):
        m.text - 1
    with pytest.raises(AttributeError, match="has no attribute 'nope'"):
        m.text.nope
    assert not hasattr(m, "nope")


def test_attributes(m: Any) -> None:
    """Get, set and delete, on the object there."""
    m.vector.x = 30
    assert m.vector.x == 30
    m.added = [1]
    assert m.added == [1]
    del m.added
    assert not hasattr(m, "added")


def test_items(m: Any) -> None:
    """Get, set and delete; a missing one raises the real KeyError."""
    m.mapping["b"] = 2
    assert m.mapping == {"a": 1, "b": 2}
    del m.mapping["a"]
    assert list(m.mapping) == ["b"]
    with pytest.raises(KeyError, match="a"):
        m.mapping["a"]


def test_a_proxy_is_bound_to_its_object(m: Any) -> None:
    """As a local name is: a new value of the variable does not change what was fetched."""
    numbers = m.numbers
    m.numbers = []
    assert numbers == [3, 1, 2]
    assert m.numbers == []


def test_in_place_operators(m: Any) -> None:
    """They rebind as Python does: the same object where the type changes itself."""
    vector = m.vector
    vector += m.Vector(1, 1)
    assert vector is m.vector
    assert (m.vector.x, m.vector.y) == (4, 5)
    number = m.integer
    number += 1
    assert number == 8
    assert m.integer == 7
    m.integer += 1
    assert m.integer == 8


def test_identity(m: Any) -> None:
    """One proxy per object while it lives; a method that returns its object returns its proxy."""
    assert m.vector is m.vector
    assert m.vector.same() is m.vector
    assert m.is_same(m.vector, m.vector)
    assert m.identity(m.lock) is m.lock


def test_proxies_as_arguments(m: Any) -> None:
    """A proxy of the same daemon is the real object there, however deep it hides."""
    assert m.is_same(m.vector, m.vector)
    assert m.identity({"k": [m.text]}) == {"k": ["hello"]}
    assert m.is_same(*[m.numbers] * 2)
    assert (m.vector + m.Vector(1, 1)) == m.Vector(4, 5)
    append = m.numbers.append
    m.identity(append)(4)
    assert m.numbers == [3, 1, 2, 4]


def test_results_that_cannot_be_copied_are_proxies(m: Any) -> None:
    """Classes of the script, locks, generators, functions; also in a container."""
    for result in (m.Vector(1, 2), m.identity(m.lock), m.generate(3), m.identity(m.fail)):
        assert isinstance(result, ObjectProxy)
    assert isinstance(m.locks(), ObjectProxy)
    boxes = m.boxes()
    assert [box.x for box in boxes] == [1, 3]


def test_calls_are_never_repeated(home: Path) -> None:
    """A result that does not load here becomes a proxy without a second call."""
    module = spawny.run_script(
        "class Own: pass\nmade = []\n"
        "def make():\n    made.append(Own())\n    return {'own': made[-1]}\n"
        "def count():\n    return len(made)\n"
    )
    result = module.make()
    assert isinstance(result["own"], ObjectProxy)
    assert module.count() == 1


def test_iteration(m: Any) -> None:
    """Of containers in chunks, of generators item by item, each in order and to the end."""
    assert list(m.generate(100)) == list(range(100))
    m.numbers.extend(range(10_000))
    assert list(m.numbers) == [3, 1, 2, *range(10_000)]
    assert [box.y for box in m.boxes()] == [2, 4]
    generator = m.generate(2)
    assert (next(generator), next(generator), next(generator, "end")) == (0, 1, "end")


def test_iteration_in_chunks_takes_few_round_trips(m: Any) -> None:
    """A list of 10,000 items comes in at most 20 requests."""
    m.numbers.extend(range(9_997))
    numbers = m.numbers
    before = spawny.daemon(m).status().calls
    assert len(list(numbers)) == 10_000
    assert spawny.daemon(m).status().calls - before <= 20


def test_with(m: Any) -> None:
    """Context managers enter and leave there; they see exceptions, and may suppress them."""
    with m.vector as inside:
        assert inside is m.vector
    assert m.vector.entered is True
    assert m.vector.left_by is None
    with m.vector:
        raise KeyError("suppressed")
    assert m.vector.left_by == "KeyError"
    with pytest.raises(ValueError, match="seen"), m.vector:
        raise ValueError("seen")
    assert m.vector.left_by == "ValueError"
    with m.lock:
        assert m.lock.locked()
    assert not m.lock.locked()


def test_inspection(m: Any) -> None:
    """dir, doc strings, repr and help are those of the object."""
    assert {"numbers", "vector", "fail"} <= set(dir(m))
    assert {"x", "length", "__add__"} <= set(dir(m.vector))
    assert repr(m.vector) == "Vector(3, 4)"
    assert m.__doc__ == "A module to play with."
    assert m.vector.length.__doc__ == "How long it is."
    assert m.vector.length.__name__ == "length"
    assert str(inspect.signature(m.fail)) == "(kind, *args)"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("vector", "Two numbers."),
        ("vector.length", "length() method"),
        ("vector.length", "How long it is."),
        ("fail", "fail(kind, *args)"),
        ("Vector", "Two numbers."),
    ],
)
def test_help(m: Any, path: str, says: str) -> None:
    """`help` of variables, methods, functions and classes shows what theirs does."""
    assert says in pydoc.plain(pydoc.render_doc(operator.attrgetter(path)(m)))


def test_help_of_the_module(m: Any) -> None:
    """`help` of the whole module."""
    text = pydoc.plain(pydoc.render_doc(m))
    assert "A module to play with." in text


def test_methods_take_one_round_trip(m: Any) -> None:
    """A method of a known type is called at once, without being fetched first."""
    vector = m.vector
    supervisor = spawny.connect()
    name = spawny.daemon(m).name
    before = supervisor.status(name).calls
    assert vector.length() == 5
    assert supervisor.status(name).calls == before + 1


def test_a_method_that_the_object_shadows(m: Any) -> None:
    """An attribute of the object's own covers a method of its type, as ever."""
    m.vector.length = 12
    assert m.vector.length == 12
    del m.vector.length
    assert m.vector.length() == 5


def test_exceptions(m: Any) -> None:
    """Real classes, with the remote traceback as their cause; else a RemoteError."""
    with pytest.raises(ZeroDivisionError, match="by nothing") as caught:
        m.fail(ZeroDivisionError, "by nothing")
    cause = caught.value.__cause__
    assert isinstance(cause, spawny.RemoteTraceback)
    assert "in fail" in str(cause)
    assert "raise kind(*args)" in str(cause)
    assert "kernel" not in str(cause)
    with pytest.raises(spawny.RemoteError, match=r"^odd: 1 2$") as remote:
        m.odd()
    assert remote.value.type_name.endswith(".Odd")
    assert "in odd" in remote.value.remote_traceback
    with pytest.raises(SystemExit):
        m.fail(SystemExit, 3)
    with pytest.raises(StopIteration):
        m.fail(StopIteration)
    assert m.integer == 7


def test_what_cannot_travel(m: Any) -> None:
    """A SerializationError names it; nothing was called, and the connection lives."""
    with pytest.raises(spawny.SerializationError, match="generator"):
        m.identity(each for each in ())
    other = spawny.run_script(SCRIPT)
    with pytest.raises(spawny.SerializationError, match=r"pass spawny\.value"):
        m.identity(other.vector)
    with pytest.raises(spawny.SerializationError, match="cannot be copied"):
        spawny.value(m.lock)
    with pytest.raises(spawny.SerializationError, match="does not load here"):
        spawny.value(m.vector)
    assert (m.integer == object()) is False
    assert m.integer == 7


def test_value_and_ref(m: Any) -> None:
    """`value` copies what is there, `ref` keeps a result there."""
    copied = spawny.value(m.numbers)
    assert type(copied) is list
    copied.append(4)
    assert m.numbers == [3, 1, 2]
    assert spawny.value(5) == 5
    kept = spawny.ref(m.identity)([1])
    assert isinstance(kept, ObjectProxy)
    kept.append(2)
    assert kept == [1, 2]
    shout = spawny.ref(m.text.upper)()
    assert isinstance(shout, ObjectProxy)
    assert shout == "HELLO"


def test_functions_of_the_client_travel_to_the_same_version(m: Any) -> None:
    """By their code where both interpreters are of one version."""
    offset = 10
    assert sorted(m.identity(lambda x: x + offset)(n) for n in range(2)) == [10, 11]


def test_references_are_released(m: Any) -> None:
    """Without another call; none is left when all proxies are gone."""
    exported, vector = m.exported, m.Vector
    assert eventually(lambda: exported() == 3)  # the root and these two
    before = exported()
    kept = [vector(n, n) for n in range(500)]
    assert exported() == before + 500
    del kept
    gc.collect()
    assert eventually(lambda: exported() == before)


def test_a_proxy_in_a_cycle_is_released_by_the_collector(home: Path) -> None:
    """With everything that refers to it, as an exception and its frames do."""
    module = spawny.run_script("x = []")
    pid = spawny.daemon(module).pid
    cycle: list[Any] = [module, module.x]
    cycle.append(cycle)
    del module, cycle
    gc.collect()
    assert is_gone(pid)


def test_copies_and_pickles(m: Any) -> None:
    """A root proxy pickles as an attachment; others say what to do."""
    again = pickle.loads(pickle.dumps(m))
    assert again.integer == 7
    with pytest.raises(spawny.SerializationError, match=r"spawny\.value"):
        pickle.dumps(m.vector)


def test_copies_are_made_there(m: Any) -> None:
    """`copy.copy` and `copy.deepcopy` of a proxy give a proxy of a copy; TypeErrors as locally."""
    m.nested = [[1], 2]
    shallow, deep = copy.copy(m.nested), copy.deepcopy(m.nested)
    assert issubclass(type(shallow), ObjectProxy) and issubclass(type(deep), ObjectProxy)
    m.nested[0].append(2)  # of a value that came here
    spawny.ref(m.nested.__getitem__)(0).append(3)
    assert (m.nested, shallow, deep) == ([[1, 3], 2], [[1, 3], 2], [[1], 2])
    assert copy.copy(m.vector) == m.vector
    assert copy.copy(m.vector) is not m.vector
    kept = copy.deepcopy({"v": m.vector, "again": m.vector})
    assert kept["v"] is kept["again"]
    text = m.text
    assert copy.copy(text) is text
    assert m.vector.__deepcopy__({}) == m.vector
    for copier in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"cannot pickle '_thread.lock' object"):
            copier(m.lock)


def test_hashes_agree_with_equality(m: Any) -> None:
    """A proxy is found in a set by an equal object, and the other way round."""
    assert {m.text: 1}["hello"] == 1
    assert {"hello": 1}[m.text] == 1
    assert {7: 1}[m.integer] == 1


def test_an_operator_is_carried_out_once(home: Path) -> None:
    """Also where user code itself raises a SerializationError."""
    module = spawny.run_script(
        """
import pickle
class SerializationError(TypeError):
    pass
SerializationError.__module__ = "spawny.errors"
class Counter:
    def __init__(self): self.n = 0
    def __add__(self, other):
        self.n += 1
        raise SerializationError("mine")
    def __enter__(self): return self
    def __exit__(self, *error):
        self.n += 1
        raise SerializationError("mine")
counter = Counter()
"""
    )
    with pytest.raises((spawny.SerializationError, spawny.RemoteError), match="mine"):
        module.counter + 1
    assert module.counter.n == 1
    with (
        pytest.raises((spawny.SerializationError, spawny.RemoteError), match="mine"),
        module.counter,
    ):
        pass
    assert module.counter.n == 2


def test_addresses_never_cross(m: Any) -> None:
    """Protocols that hand out memory addresses are not passed on."""
    for name in ("__array_interface__", "__array_struct__", "__dlpack__"):
        assert not hasattr(m.numbers, name)


def test_proxies_are_not_made_by_hand() -> None:
    """There is nothing that they could stand for."""
    with pytest.raises(TypeError, match="run_script"):
        ObjectProxy()


def test_about_a_daemon(m: Any) -> None:
    """`daemon(p)` tells and does what concerns the whole daemon."""
    about = spawny.daemon(m.vector)
    assert about.name.startswith("anonymous-")
    assert about.pid == about.status().pid
    assert about.status().clients == 1
    assert about.interrupt() is False
    with pytest.raises(spawny.InvalidRequest, match="no proxy"):
        spawny.daemon(3)


def test_restart_and_stop_through_a_proxy(home: Path) -> None:
    """After a restart the root's proxy comes back, others are stale; after a stop all are gone."""
    module = spawny.run_script(SCRIPT, name="one")
    about, numbers = spawny.daemon(module), module.numbers
    about.restart()
    with pytest.raises((spawny.DaemonDied, spawny.StaleReference)):
        numbers.append(1)
    assert spawny.attach("one").integer == 7
    assert module.integer == 7
    assert spawny.daemon(module).pid != about.pid
    about.stop()
    with pytest.raises(spawny.DaemonNotFound):
        spawny.attach("one")
