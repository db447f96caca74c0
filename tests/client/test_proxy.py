"""Proxies of real objects in a real daemon."""

import collections.abc
import copy
import ctypes
import datetime
import gc
import inspect
import itertools
import numbers
import operator
import pydoc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny import ObjectProxy
from tests.end_to_end.processes import eventually, is_gone

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = '''
"""A module to play with."""
import collections.abc
import numbers as numbers_abc
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

class Frozen:
    def __hash__(self):
        return 12
frozen = Frozen()

def double(self, by=2):
    return [self, by]

@property
def prop(self):
    return self * 2

class Field:
    """Notes what is done to it, as a descriptor."""
    def __init__(self):
        self.log = []
    def __set_name__(self, owner, name):
        self.log.append("named " + name)
    def __get__(self, instance, owner):
        return "got" if instance is not None else "of class"
    def __set__(self, instance, value):
        self.log.append("set %s" % value)
    def __delete__(self, instance):
        self.log.append("deleted")

class Box:
    def __class_getitem__(cls, item):
        return "Box[%s]" % item.__name__

class Shelf(collections.abc.MutableSequence):
    def __init__(self): self.items = ["a", "b"]
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __setitem__(self, i, v): self.items[i] = v
    def __delitem__(self, i): del self.items[i]
    def insert(self, i, v): self.items.insert(i, v)

class Registered:
    pass
collections.abc.Mapping.register(Registered)
numbers_abc.Real.register(Registered)
shelf, registered = Shelf(), Registered()
abstract = Shelf.__mro__[1]
int, list, tuple = int, list, tuple

def take(items, *more, **named):
    return [list(each) for each in (items,) + more + tuple(named.values())]

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
    """Classes of the script, locks, generators, functions; in a container, each by itself."""
    for result in (m.Vector(1, 2), m.identity(m.lock), m.generate(3), m.identity(m.fail)):
        assert isinstance(result, ObjectProxy)
    assert [isinstance(each, ObjectProxy) for each in m.locks()] == [True]
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


def test_an_iterator_keeps_what_it_iterates_over(m: Any) -> None:
    """Until it is exhausted, as Python's do."""
    for iterate in (iter, reversed):
        kept = spawny.ref(m.list)("ab")
        alive = weakref.ref(kept)
        iterator = iterate(kept)
        del kept
        assert len([next(iterator), next(iterator)]) == 2
        assert alive() is not None
        assert next(iterator, "end") == "end"
        assert alive() is None


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
    with pytest.raises(spawny.SerializationError, match="lock"):
        m.identity(threading.Lock())
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


def test_iterators_as_arguments(m: Any) -> None:
    """One that cannot be pickled travels as what it gives; what it raises is raised here."""

    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("here")

    assert m.take(n for n in range(3)) == [[0, 1, 2]]
    assert m.take(map(str.upper, "ab"), iter([1]), key=(n for n in (1, 2))) == [
        ["A", "B"],
        [1],
        [1, 2],
    ]
    m.numbers.extend(n for n in (5, 6))
    assert m.numbers == [3, 1, 2, 5, 6]
    assert next(m.identity(n for n in (7, 8))) == 7
    assert spawny.ref(m.list)(n for n in (7, 8)) == [7, 8]
    with pytest.raises(LookupError, match="here"):
        m.take(failing())
    with pytest.raises(spawny.SerializationError, match="more than 1,000,000 items"):
        m.take(n for n in itertools.count())


def test_classes(m: Any) -> None:
    """A proxy of a class answers isinstance, issubclass and subscripts as the class does."""
    assert isinstance(m.vector, m.Vector) and not isinstance(m.numbers, m.Vector)
    assert isinstance(3, m.int) and not isinstance("3", m.int)
    assert isinstance(True, m.int) and isinstance([1], m.list)
    assert isinstance(m.integer, m.int)
    assert issubclass(m.Shelf, m.abstract) and issubclass(bool, m.int)
    assert not isinstance(object(), m.Vector)
    assert not isinstance(lambda: 0, m.Vector)
    assert m.Box[int] == "Box[int]"
    assert m.list[int] == list[int]
    with pytest.raises(TypeError):
        iter(m.Vector)
    with pytest.raises(TypeError):
        assert 3 in m.Vector
    with pytest.raises(spawny.RemoteError) as caught:
        m.odd()
    assert isinstance(caught.value, m.Odd)
    assert not isinstance(caught.value, m.Vector)


def test_no_class_here_inherits_from_one_there(m: Any) -> None:
    """The TypeError says so, and what to do."""
    with pytest.raises(TypeError, match=r"cannot inherit from .*Vector.* subclass there"):

        class Local(m.Vector):  # type: ignore[misc]
            pass


def test_abstract_classes(m: Any) -> None:
    """isinstance of collections.abc and numbers, and `match`, as for the objects."""
    assert isinstance(m.numbers, collections.abc.MutableSequence)
    assert isinstance(m.mapping, collections.abc.MutableMapping)
    assert isinstance(m.shelf, collections.abc.MutableSequence)
    assert not isinstance(m.shelf, collections.abc.Mapping)
    assert isinstance(m.registered, collections.abc.Mapping)
    assert isinstance(m.registered, numbers.Real)
    assert not isinstance(m.registered, collections.abc.Sequence)
    assert isinstance(m.text, collections.abc.Sequence)
    assert isinstance(m.identity({1}), collections.abc.MutableSet)
    assert isinstance(spawny.ref(m.identity)({1}.union), collections.abc.Callable)
    assert isinstance(m.integer, numbers.Integral)
    match m.shelf:
        case ["a", "b"]:
            pass
        case _:
            pytest.fail("a sequence of the script's own does not match a sequence pattern")
    match m.mapping:
        case {"a": 1}:
            pass
        case _:
            pytest.fail("a dict does not match a mapping pattern")
    match m.text:
        case [*_]:
            pytest.fail("text matches a sequence pattern")


def test_functions_and_descriptors_in_a_class_here(m: Any) -> None:
    """They bind to its instances, as any do."""

    class Local(int):
        double = m.double
        prop = m.prop
        field = spawny.ref(m.Field)()

    local = Local(21)
    assert local.double(by=3) == [21, 3]
    assert Local.double is m.double
    assert local.prop == 42
    assert (local.field, Local.field) == ("got", "of class")
    local.field = 5
    del local.field
    log = Local.__dict__["field"].log
    assert log == ["named field", "set 5", "deleted"]


def test_special_methods_by_name(m: Any) -> None:
    """`NotImplemented` is Python's own; what a method gives is what it gives there."""
    assert m.integer.__add__("x") is NotImplemented
    assert m.numbers.__eq__(3) is NotImplemented
    assert m.numbers.__getitem__(0) == 3
    m.numbers.__init__([7])
    assert m.numbers == [7]
    assert m.vector.__eq__(m.vector) is True


def test_what_a_list_becomes(m: Any) -> None:
    """In-place operators rebind as they do locally: the same list, but a new int."""
    kept = numbers = m.numbers
    numbers += [4]
    assert numbers is kept
    numbers *= 2
    assert numbers is kept
    assert numbers == [3, 1, 2, 4, 3, 1, 2, 4]
    integer = m.integer
    integer **= 2
    assert type(integer) is int
    assert pow(m.integer, 2, 5) == 4


def test_numpy(m: Any) -> None:
    """Arrays cross as copies, never as addresses; operators with arrays here give arrays here."""
    np = pytest.importorskip("numpy")
    there: Any = spawny.run_script("import numpy as np\na = np.arange(4.0)\nf = np.float64(2)\n")
    a, here = there.a, np.ones(4)
    copied = np.asarray(a)
    assert type(copied) is np.ndarray and copied.tolist() == [0, 1, 2, 3]
    copied[0] = 9
    assert a[0] == 0
    assert np.asarray(a, dtype=int).dtype == int
    assert np.array(m.numbers).tolist() == [3, 1, 2]
    for result in (here + a, a + here, here * a + 1, np.add(a, here), np.concatenate([a, here])):
        assert type(result) is np.ndarray
    assert (here + a).tolist() == (a + here).tolist() == [1, 2, 3, 4]
    assert np.sum(a) == a.sum() == 6
    assert np.sqrt(a)[1] == 1
    assert isinstance(a, np.ndarray) and len(a) == 4 and float(there.f) == 2
    here += a
    assert here.tolist() == [1, 2, 3, 4]
    a += np.ones(4)
    assert isinstance(a, ObjectProxy) and a.tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="as a copy"):
        a.__array__(copy=False)
    with pytest.raises(TypeError):
        memoryview(a)
    with pytest.raises((TypeError, ctypes.ArgumentError)):
        ctypes.pythonapi.Py_IncRef(a.ctypes)
    for name in ("__array_interface__", "__array_struct__", "__dlpack__", "_as_parameter_"):
        assert not hasattr(a, name)
    assert not hasattr(m.numbers, "__array__")


def test_hashes_of_what_holds_text(m: Any) -> None:
    """Salted in each process, they are worked out here; what stays there has its own."""
    when = datetime.date(2024, 2, 29)
    assert {when: 1}[spawny.ref(m.identity)(when)] == 1
    assert {("a", 1): 1}[spawny.ref(m.tuple)(("a", 1))] == 1
    mixed = spawny.ref(m.tuple)((m.vector.length, "a"))
    assert hash(mixed) == hash(mixed)
    assert hash(m.frozen) == 12


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
