"""Results of which a part cannot come here: it stays in its daemon, and the rest is copied."""

import gc
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import pytest

import spawny
from spawny import ObjectProxy, callback
from tests.end_to_end.processes import eventually
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = """
import collections, gc, sys, threading, types, weakref
from fractions import Fraction

calls = []
alive = weakref.WeakSet()

class Thing:
    def __init__(self, number=0):
        self.number = number
        alive.add(self)

class Key:
    def __init__(self, number):
        self.number = number
    def __eq__(self, other):
        return type(other) is Key and other.number == self.number
    def __hash__(self):
        if self.number < 0:
            raise ValueError("no hash any more")
        return hash(self.number)

# A module that no client has.
hidden = sys.modules["only_in_the_daemon"] = types.ModuleType("only_in_the_daemon")
exec('''
class Far:
    def __init__(self, number=0):
        self.number = number
    def double(self):
        return 2 * self.number
class Fickle:
    count = 0
    def __reduce__(self):
        Fickle.count += 1
        if Fickle.count % 3 == 0:
            raise TypeError("enough")
        return Fickle, ()
''', hidden.__dict__)

class Pair(collections.namedtuple("Pair", "a b")):
    pass

class NoArguments(Exception):
    pass

thing = Thing(7)

def things(n):
    calls.append("things")
    return [Thing(i) for i in range(n)]
def far(n):
    calls.append("far")
    return [hidden.Far(i) for i in range(n)]
def make(code):
    return eval(code)
def mixed():
    half = Fraction(1, 2)
    return [thing, half, half, {"a": thing, "b": [1, (thing, "text")]}]
def recursive():
    outer = [Thing()]
    outer.append({"outer": outer})
    return outer
def unpicklable():
    return [threading.Lock(), (n for n in "ab"), lambda: 5, things, types, 1]
def keyed(number):
    return {Key(number): "value", "plain": hidden.Far()}
def late_hash():
    key = Key(1)
    result = [{key}, hidden.Far()]
    key.number = -1
    return result
def broken():
    return [UnicodeDecodeError("ascii", b"x", 0, 1, "no"), bad_error(), 2]
def bad_error():
    error = UnicodeDecodeError("ascii", b"x", 0, 1, "no")
    error.args = ()  # with which it cannot be made again
    return error
def graph(n):
    root = hidden.Far()
    root.nodes = [hidden.Far(i) for i in range(n)]
    for node in root.nodes:
        node.root = root
    return root.nodes
def fickle():
    return [Thing(), hidden.Fickle(), Thing()]
def count_alive():
    gc.collect()
    return len(alive)
def buffers():
    buffer = []
    for i in range(3):
        buffer.append(hidden.Far(i))
        yield buffer
def rows():
    for i in range(4):
        yield [hidden.Far(i), i]
def give(function, *args):
    return function(*args)
def give_mixed(function):
    return function([thing, 1], [hidden.Far(3), Fraction(1, 3)], key=(thing,))
class Shelf:
    def __init__(self):
        self.content = {"thing": thing, "far": hidden.Far(4), "number": 4}
shelf = Shelf()
def forget():
    global thing
    thing = shelf.content = None
"""


def start() -> Any:
    return spawny.run_script(SCRIPT)


def is_proxy(obj: Any) -> bool:
    return issubclass(type(obj), ObjectProxy)


def test_a_list_of_a_scripts_objects(interpreter: Interpreter) -> None:
    """It is a list of proxies, made in one call, under every interpreter."""
    module = spawny.run_script(SCRIPT, python_exe=str(interpreter.path))
    things = module.things(3)
    assert type(things) is list and all(is_proxy(each) for each in things)
    assert [each.number for each in things] == [0, 1, 2]
    assert module.calls == ["things"]
    mixed = module.mixed()
    assert mixed[1] == Fraction(1, 2) and mixed[1] is mixed[2]
    assert mixed[0] is mixed[3]["a"] is mixed[3]["b"][1][0]
    assert [is_proxy(each) for each in module.unpicklable()] == [True] * 5 + [False]


def test_objects_of_a_module_that_only_the_daemon_has(interpreter: Interpreter) -> None:
    """So is a list of these, made in one call."""
    module = spawny.run_script(SCRIPT, python_exe=str(interpreter.path))
    far = module.far(3)
    assert type(far) is list and all(is_proxy(each) for each in far)
    assert [each.double() for each in far] == [0, 2, 4]
    assert module.calls == ["far"]


def test_what_loads_here_is_a_value() -> None:
    """Beside proxies, in containers of each kind, keys and values alike."""
    module = start()
    result = module.mixed()
    assert type(result) is list and type(result[1]) is Fraction and result[1] is result[2]
    assert type(result[3]) is dict and result[3]["b"][0] == 1
    assert type(result[3]["b"][1]) is tuple and result[3]["b"][1][1] == "text"
    for code, kind in (("{thing, 1}", set), ("frozenset([thing, 1])", frozenset)):
        result = module.make(code)
        assert type(result) is kind and 1 in result and module.thing in result and len(result) == 2
    result = module.make("{thing: 1, 2: thing}")
    assert result[2].number == 7 and result[module.thing] == 1


def test_the_same_object_is_the_same_proxy() -> None:
    """However often it is in an answer, and the one that is here already."""
    module = start()
    thing = module.thing
    result = module.mixed()
    assert result[0] is thing and result[3]["a"] is thing and result[3]["b"][1][0] is thing


def test_the_same_value_is_the_same_object() -> None:
    """Where it stands beside what does not load here, too."""
    module = start()
    far, half, again, inner, twice = module.make(
        "(lambda half, inner: [hidden.Far(), half, half, inner, [inner]])(Fraction(1, 2), [1])"
    )
    assert is_proxy(far) and type(half) is Fraction and half is again and twice[0] is inner


def test_a_container_in_itself() -> None:
    """It arrives as it is."""
    module = start()
    result = module.recursive()
    assert is_proxy(result[0]) and result[1]["outer"] is result


def test_what_cannot_be_pickled() -> None:
    """Locks, generators, functions and modules are proxies in a list, not a proxy of the list."""
    module = start()
    lock, generator, function, things, types, one = result = module.unpicklable()
    assert type(result) is list and one == 1
    assert not lock.locked() and list(generator) == ["a", "b"] and function() == 5
    assert len(things(2)) == 2 and types.__name__ == "types"
    one, other = module.make("[types.SimpleNamespace(x=each) for each in (1, threading.Lock())]")
    assert one.x == 1 and not is_proxy(one) and is_proxy(other)


def test_keys_that_stay() -> None:
    """They are proxies, which are equal, and hash alike, where the objects do."""
    module = start()
    result = module.keyed(5)
    (key,) = (each for each in result if is_proxy(each))
    assert result[key] == "value" and hash(key) == hash(5)
    assert result[module.make("Key(5)")] == "value" and module.make("Key(6)") not in result


def test_a_value_that_fails_to_load() -> None:
    """It alone stays: its class is known here, yet refuses to be made again."""
    module = start()
    good, bad, two = module.broken()
    assert type(good) is UnicodeDecodeError and is_proxy(bad) and two == 2
    assert isinstance(bad, UnicodeDecodeError)


def test_what_holds_others_and_is_no_container() -> None:
    """A subclass of a container, a namedtuple and an instance come as a whole or stay as a whole:
    only their class knows what it makes of its contents."""
    module = start()
    plain, ordered, pair = module.make(
        "[collections.OrderedDict(a=1), collections.OrderedDict(a=thing), Pair(1, 2)]"
    )
    assert type(plain) is OrderedDict and is_proxy(ordered) and is_proxy(pair)
    assert ordered["a"].number == 7 and pair.b == 2
    assert is_proxy(module.make("collections.OrderedDict(a=thing)"))


def test_a_hash_that_fails_here() -> None:
    """The container itself stays where it cannot be made again of proxies."""
    module = start()
    assert is_proxy(module.late_hash())
    assert module.make("1 + 1") == 2


def test_attributes() -> None:
    """They come as results do."""
    module = start()
    content = module.shelf.content
    assert type(content) is dict and content["number"] == 4
    assert content["thing"] is module.thing and content["far"].double() == 8


def test_items_of_an_iteration() -> None:
    """So do they, and each is as it was when it was given."""
    module = start()
    assert [(far.number, i) for far, i in module.rows()] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    sizes = [len(each) for each in module.buffers()]
    assert sizes == [1, 2, 3]
    (one,) = module.make("iter([[thing, 1]])")
    assert type(one) is list and one[0] is module.thing


def test_arguments_of_a_callback() -> None:
    """So do they."""
    module = start()
    got: list[Any] = []

    def take(*args: Any, **kwargs: Any) -> None:
        got.extend([*args, kwargs["key"]])

    module.give_mixed(callback(take))
    one, two, key = got
    assert type(one) is list and one[0] is module.thing and one[1] == 1
    assert two[0].double() == 6 and two[1] == Fraction(1, 3) and key == (module.thing,)


def test_calls_in_a_callback_and_in_a_batch() -> None:
    """They have the same results, asked for in any way."""
    module = start()
    got: list[Any] = []
    module.give(callback(lambda: got.append(module.keyed(3))))
    assert sorted(got[0].values(), key=str)[1] == "value"
    with spawny.batch() as batch:
        futures = [
            batch.call(each, *args)
            for each, args in ((module.far, (2,)), (module.mixed, ()), (module.late_hash, ()))
        ]
    assert [each.number for each in futures[0].result()] == [0, 1]
    assert futures[1].result()[0] is module.thing and is_proxy(futures[2].result())
    assert spawny.submit(module.far, 2).result()[1].double() == 2


def test_what_has_been_used_is_released() -> None:
    """The daemon keeps no object for the sake of an answer that is gone here."""
    module = start()
    module.forget()
    for code in (
        "things(5)",
        "[things(5), hidden.Far()]",
        "[[hidden.Far()], {Thing(): Fraction(1)}]",
    ):
        result = module.make(code)
        assert module.count_alive() > 0
        del result
        gc.collect()
        assert eventually(lambda: module.count_alive() == 0)


def test_an_answer_that_fails_half_way() -> None:
    """What it refers to already is released; the container comes as a proxy."""
    module = start()
    module.forget()
    for _ in range(4):
        result = module.fickle()
        assert len(result) == 3
        del result
        gc.collect()
        assert eventually(lambda: module.count_alive() == 0)


def test_many() -> None:
    """A hundred thousand take a second or two, also where each holds all others."""
    module = start()
    assert len({id(each) for each in module.far(100_000)}) == 100_000
    nodes = module.graph(20_000)
    assert type(nodes) is list and nodes[0].root.nodes[1] == nodes[1]
