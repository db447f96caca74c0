"""Iteration over objects in a real daemon: chunks that nobody notices but by their speed."""

import decimal
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import spawny
from spawny.client.channel import Channel
from spawny.kernel import wire
from tests.end_to_end.processes import eventually
from tests.interpreters import Interpreter

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.one_supervisor]

SCRIPT = """
import decimal, itertools, sys, threading

def count(n):
    for i in range(n):
        yield i
    return "done"

def quick(n):
    return (i for i in range(n))

def delegating(n):
    yield from count(n)
    yield from range(n)

def echo():
    got = yield "ready"
    while True:
        got = yield got

def first_plain_then_echo():
    yield 1
    yield 2
    while True:
        got = yield 3
        seen.append(got)
    return

def fails_after(n):
    yield from range(n)
    raise LookupError("that was all")

def closing():
    try:
        for i in itertools.count():
            yield i
    finally:
        seen.append("closed")

def catching():
    while True:
        try:
            yield "yielded"
        except ValueError as error:
            yield "caught %s" % error

def reused():
    row = []
    for i in range(100):
        row.append(i)
        yield row

class Thing:
    pass

def mixed():
    for i in range(20):
        yield i
        yield decimal.Decimal(i)
        yield threading.Lock()
        yield Thing()
        yield (i, [i])

class OnlyThere:
    def __repr__(self):
        return "<only there>"

def unloadable():
    import types
    module = sys.modules["only_there"] = types.ModuleType("only_there")
    module.OnlyThere = OnlyThere
    OnlyThere.__module__ = "only_there"
    for i in range(20):
        yield decimal.Decimal(i)
        yield OnlyThere()

class Counter:
    def __init__(self, n):
        self.n, self.made = n, 0
    def __iter__(self):
        return self
    def __next__(self):
        if self.made >= self.n:
            raise StopIteration
        self.made += 1
        return self.made - 1

class Countable:
    def __init__(self, n):
        self.n = n
    def __iter__(self):
        return Counter(self.n)

class Shared:
    def __init__(self, n):
        self.iterator = Counter(n)
    def __iter__(self):
        return self.iterator

made = []
def noting(n):
    for i in range(n):
        made.append(i)
        yield i

def slow(n):
    for i in range(n):
        threading.Event().wait(0.003)
        made.append(i)
        yield i

def pausing(n, pause_at):
    for i in range(n):
        if i == pause_at:
            threading.Event().wait(0.02)
        made.append(i)
        yield i

def big(n):
    for i in range(n):
        made.append(i)
        yield b"x" * 1000000

def opening(n):
    for i in range(n):
        with open(sys.executable, "rb") as file:
            yield file

class Place:
    number = None

def moving(n):
    place = Place()
    for place.number in range(n):
        yield place if place.number % 2 else (place, place.number)

class Restarting:
    def __iter__(self):
        self.i = 0
        return self
    def __next__(self):
        self.i += 1
        if self.i > 3:
            raise StopIteration
        return self.i

def total(iterable):
    return sum(iterable)

def keep(iterator):
    kept.append(iterator)
    return iterator
kept = []

def kinds(iterable):
    return [type(each).__name__ for each in iterable]

def interrupted():
    for i in range(1000):
        if i == 100:
            raise KeyboardInterrupt
        yield i

numbers = list(range(10000))
mapping = {i: i for i in range(10)}
members = set(range(10))
seen = []
"""


@pytest.fixture
def m(home: Path) -> Iterator[Any]:
    module = spawny.run_script(SCRIPT)
    yield module
    module.terminate_daemon()


@pytest.fixture
def there(home: Path, interpreter: Interpreter) -> Iterator[Any]:
    """The same under every interpreter."""
    module = spawny.run_script(SCRIPT, python_exe=interpreter.path)
    yield module
    module.terminate_daemon()


class Trips:
    """Counts the requests that are sent, by their kind."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kinds: Counter[int] = Counter()
        exchange = Channel.exchange

        def counted(channel: Channel, kind: int, *args: Any, **kwargs: Any) -> Any:
            self.kinds[kind] += 1
            return exchange(channel, kind, *args, **kwargs)

        monkeypatch.setattr(Channel, "exchange", counted)

    @property
    def total(self) -> int:
        return sum(self.kinds.values())


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> Trips:
    return Trips(monkeypatch)


def test_a_list_takes_few_round_trips(there: Any, trips: Trips) -> None:
    """Ten thousand items in at most twenty."""
    numbers = there.numbers
    trips.kinds.clear()
    assert list(iter(numbers)) == list(range(10_000))
    assert trips.total <= 20


@pytest.mark.parametrize("name", ["count", "quick", "delegating"])
def test_a_quick_generator_takes_few_round_trips(there: Any, trips: Trips, name: str) -> None:
    """A thousandth of a trip an item, whether its code yields, is an expression or delegates."""
    generator = getattr(there, name)(10_000)
    trips.kinds.clear()
    expected = list(range(10_000)) * (2 if name == "delegating" else 1)
    assert list(generator) == expected
    assert trips.total <= 100


@pytest.mark.parametrize("name", ["map", "filter", "zip", "enumerate", "islice", "chain"])
def test_wrappers_take_few_round_trips(m: Any, trips: Trips, name: str) -> None:
    """As generators do: map, filter, zip, enumerate, itertools."""
    source = {
        "map": "map(str, range(3000))",
        "filter": "filter(None, range(3000))",
        "zip": "zip(range(3000), range(3000))",
        "enumerate": "enumerate(range(3000))",
        "islice": "__import__('itertools').islice(range(9000), 3000)",
        "chain": "__import__('itertools').chain(range(3000))",
    }[name]
    wrapper = spawny.run_script("def make(): return " + source).make()
    trips.kinds.clear()
    assert list(wrapper) == list(eval(source))
    assert trips.total <= 60


def test_the_own_iterator_of_an_object_is_read_ahead(m: Any, trips: Trips) -> None:
    """What iter() has just made belongs to this loop alone, whatever its class."""
    countable = m.Countable(1000)
    trips.kinds.clear()
    assert list(countable) == list(range(1000))
    assert trips.total <= 60


def test_an_iterator_with_a_face_is_not_read_ahead(m: Any) -> None:
    """An iterator that is held as such, or by another object, has made what was asked for."""
    counter = m.Counter(10)
    assert [next(counter) for _ in range(4)] == [0, 1, 2, 3]
    assert counter.made == 4
    shared = m.Shared(10)
    assert list(itertools.islice(shared, 4)) == [0, 1, 2, 3]
    assert shared.iterator.made == 4


def test_each_loop_begins_with_iter(there: Any) -> None:
    """An object that is its own iterator may begin anew with each loop, or be none before it."""
    restarting = there.Restarting()
    assert [list(restarting) for _ in range(3)] == [[1, 2, 3]] * 3
    assert iter(restarting) is restarting


def test_the_first_item_comes_alone(there: Any) -> None:
    """A generator has not gone on by an instruction after its first next()."""
    generator = there.noting(100)
    assert next(generator) == 0
    assert spawny.value(there.made) == [0]


def test_a_slow_generator_gives_one_item_a_trip(m: Any) -> None:
    """Nothing is computed before it is wanted."""
    for n, item in enumerate(m.slow(20)):
        assert item == n
        assert len(m.made) == n + 1


def test_items_that_had_to_wait_make_wary(m: Any) -> None:
    """After a pause among quick items these come one by one, for a while."""
    for item in m.pausing(200, 30):
        if item in (32, 40, 45):
            assert len(m.made) == item + 1
    assert item == 199


def test_send_where_the_value_is_used(there: Any) -> None:
    """A generator that uses what it is sent gets it, at the very yield."""
    generator = there.echo()
    with pytest.raises(TypeError, match="just-started"):
        generator.send(1)
    assert next(generator) == "ready"
    assert [generator.send(n) for n in range(20)] == list(range(20))
    assert next(generator) is None
    assert [next(generator) for _ in range(10)] == [None] * 10
    assert generator.send("again") == "again"


def test_send_after_items_that_were_fetched_ahead(there: Any) -> None:
    """send() goes on where the client is, not where the daemon's generator is."""
    generator = there.count(100)
    assert [next(generator) for _ in range(8)] == list(range(8))
    assert generator.send("ignored") == 8
    send = generator.send
    assert next(generator) == 9
    assert send(None) == 10
    assert list(generator) == list(range(11, 100))


def test_reading_ahead_ends_where_a_value_is_used(there: Any) -> None:
    """It is not the generator that is looked at, but the very yield at which it stands."""
    generator = there.first_plain_then_echo()
    assert [next(generator), next(generator), next(generator)] == [1, 2, 3]
    assert generator.send("mine") == 3
    assert spawny.value(there.seen) == ["mine"]


def test_throw_and_close(there: Any) -> None:
    """They act where the generator is now; what was fetched ahead is dropped."""
    generator = there.catching()
    assert [next(generator) for _ in range(6)] == ["yielded"] * 6
    assert generator.throw(ValueError("it")) == "caught it"
    generator = there.closing()
    assert [next(generator) for _ in range(6)] == list(range(6))
    generator.close()
    assert spawny.value(there.seen) == ["closed"]
    assert next(generator, "end") == "end"


def test_what_was_fetched_ahead_is_not_lost_to_the_daemon(there: Any) -> None:
    """A function there that gets the generator goes on where the client is."""
    generator = there.count(100)
    assert [next(generator) for _ in range(8)] == list(range(8))
    assert there.total(generator) == sum(range(8, 100))
    assert next(generator, "end") == "end"


def test_a_generator_that_the_daemon_holds_is_not_read_ahead(m: Any) -> None:
    """Its own code may go on with it at any time."""
    generator = m.noting(100)
    m.keep(generator)
    assert [next(generator) for _ in range(8)] == list(range(8))
    assert len(m.made) == 8


def test_the_value_of_the_end(there: Any) -> None:
    """StopIteration carries what the generator returned, once; `yield from` sees it."""
    generator = there.count(3)
    assert [next(generator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value == "done"
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value is None

    def delegate() -> Any:
        ends.append((yield from there.count(50)))

    ends: list[Any] = []
    assert list(delegate()) == list(range(50))
    assert ends == ["done"]


def test_an_exception_comes_after_the_items_before_it(there: Any) -> None:
    """As itself, once, with its traceback."""
    generator = there.fails_after(50)
    items: list[int] = []
    with pytest.raises(LookupError, match="that was all") as caught:
        items.extend(generator)
    assert items == list(range(50))
    assert "fails_after" in str(caught.value.__cause__)
    assert next(generator, "end") == "end"


def test_items_are_as_they_were_when_they_were_yielded(there: Any) -> None:
    """A generator may yield the same list again and again."""
    assert [len(row) for row in there.reused()] == list(range(1, 101))


def test_each_item_is_a_value_or_a_reference_by_itself(there: Any) -> None:
    """As the result of a call would be, whatever else is in its chunk."""
    for place, item in enumerate(there.mixed()):
        kind = ["int", "Decimal", "proxy", "proxy", "tuple"][place % 5]
        is_proxy = type(item) is not item.__class__ or isinstance(item, spawny.ObjectProxy)
        assert ("proxy" if is_proxy else type(item).__name__) == kind
    assert place == 99


def test_what_stays_there_is_not_left_behind(there: Any) -> None:
    """A generator may close a file, or change an object, when it is asked for the next one."""
    assert [file.closed for file in there.opening(30)] == [False] * 30
    places = (item if place % 2 else item[0] for place, item in enumerate(there.moving(30)))
    assert [place.number for place in places] == list(range(30))


def test_an_item_that_does_not_load_here_costs_itself(there: Any) -> None:
    """The others of its chunk stay values."""
    items = list(there.unloadable())
    kinds = ["Decimal" if type(item) is decimal.Decimal else "proxy" for item in items]
    assert kinds == ["Decimal", "proxy"] * 20
    assert repr(items[1]) == "<only there>"


def test_changes_of_a_collection_are_noticed(there: Any) -> None:
    """As locally: RuntimeError in dicts and sets, items that are appended to a list are seen."""
    for name, change in (("mapping", "setdefault"), ("members", "add")):
        collection = getattr(there, name)
        iterator = iter(collection)
        next(iterator)
        getattr(collection, change)("more")
        with pytest.raises(RuntimeError, match="changed"):
            list(iterator)
    count = 0
    del there.numbers[10:]
    for _ in there.numbers:
        if count == 0:
            there.numbers.append("more")
        count += 1
    assert count == 11


def test_two_threads_share_an_iterator(m: Any) -> None:
    """Each item goes to exactly one of them, and none is lost."""
    for iterator in (m.count(20_000), iter(m.Countable(20_000))):
        parts: list[list[int]] = [[], []]

        def take(part: list[int], iterator: Any = iterator) -> None:
            part.extend(iterator)

        threads = [threading.Thread(target=take, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(parts[0] + parts[1]) == list(range(20_000))


def test_leaving_a_loop_closes_the_generator(m: Any) -> None:
    """Its finally runs in the daemon when the proxy is collected; so do those of hidden ones."""
    for n in m.closing():
        if n == 50:
            break
    eventually(lambda: spawny.value(m.seen) == ["closed"])


def test_an_endless_generator_of_large_items(m: Any) -> None:
    """What is fetched ahead is bounded in bytes as well."""
    generator = m.big(200)
    for n, item in enumerate(generator):
        assert len(item) == 1_000_000
        assert len(m.made) - n <= 4
        if n == 30:
            break
    endless = spawny.run_script("import itertools\ndef make(): return itertools.count()").make()
    assert sum(itertools.islice(endless, 30_000)) == sum(range(30_000))


def test_arrays_are_weighed_with_their_buffers() -> None:
    """What lies in shared memory counts as fetched ahead, too."""
    m: Any = spawny.run_script("import numpy\narrays = [numpy.ones(10**6)] * 200")
    iterator = iter(m.arrays)
    for _ in range(40):  # more than the first chunk
        assert next(iterator)[-1] == 1
    assert len(iterator._stream.chunk) <= 1


def test_items_before_an_interrupt_are_not_lost(there: Any) -> None:
    """KeyboardInterrupt comes at once, what was collected before it with the next item."""
    generator = there.interrupted()
    items = []
    interrupts = 0
    while True:
        try:
            items.append(next(generator))
        except KeyboardInterrupt:
            interrupts += 1
        except StopIteration:
            break
    assert (items, interrupts) == (list(range(100)), 1)


def test_an_answer_that_got_lost_is_given_again(m: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the answer and its use costs no item."""
    generator = m.count(100)
    assert [next(generator), next(generator)] == [0, 1]
    exchange = Channel.exchange
    interrupts = [KeyboardInterrupt()]

    def interrupted(channel: Channel, kind: int, *args: Any, **kwargs: Any) -> Any:
        answer = exchange(channel, kind, *args, **kwargs)
        if kind == wire.NEXT and interrupts:
            raise interrupts.pop()
        return answer

    monkeypatch.setattr(Channel, "exchange", interrupted)
    items = [0, 1]
    with pytest.raises(KeyboardInterrupt):
        items.extend(generator)
    assert items + list(generator) == list(range(100))
