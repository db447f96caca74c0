"""Any history of arrays that travel: none ever changes under its owner, and nothing is left."""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import psutil
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, run_state_machine_as_test
from hypothesis.stateful import rule as hypothesis_rule

import spawny
from spawny import callback
from spawny.kernel import lender
from tests.client import shelf
from tests.client.shelf import Shelf, is_right, pattern
from tests.end_to_end.processes import eventually

pytestmark = pytest.mark.one_supervisor

OPERATIONS = 20_000
OPERATIONS_A_RUN = 200

# What either end keeps at a time, in arrays.
KEPT = 24

SCRIPT = """
import sys
from tests.client import shelf
from tests.client.shelf import descriptors, lent_and_borrowed, mapped
shelf = shelf.Shelf()
sys.modules["_spawny_kernel.lender"].KEEP_SECONDS = 1  # so that much is given up in the middle
def echo(x):
    return x
"""

# A client that is killed while it sends and receives.
DOOMED = """
import sys, spawny
from tests.client.shelf import pattern
echo = spawny.attach(sys.argv[1]).echo
mine = [pattern(items, 1) for items in (10_000, 100_000, 1_000_000)]
kept = []
while True:
    kept.append(echo(mine))
    del kept[:-3]
    print(flush=True)
"""

# In items of four bytes: below and above what goes through the socket, what shares a segment, and
# what has one of its own.
AROUND = [n + by for n in (8 * 1024, 64 * 1024, 256 * 1024) for by in (-1, 0, 1)]
SIZES = [0, 1, 1000, 20_000, *AROUND, 600_000]


@dataclass(frozen=True)
class Draw:
    """What a rule is given: drawn by hypothesis, or at random, which takes a tenth of the time."""

    strategy: st.SearchStrategy[Any]
    at_random: Callable[[Random], Any]


def integers(least: int, most: int) -> Draw:
    return Draw(st.integers(least, most), lambda rng: rng.randint(least, most))


def lists(items: Draw, least: int, most: int) -> Draw:
    return Draw(
        st.lists(items.strategy, min_size=least, max_size=most),
        lambda rng: [items.at_random(rng) for _ in range(rng.randint(least, most))],
    )


def either(first: Draw, second: Draw) -> Draw:
    return Draw(
        st.one_of(first.strategy, second.strategy),
        lambda rng: rng.choice((first, second)).at_random(rng),
    )


SHARE = Draw(st.floats(0, 1), Random.random)
FLAG = Draw(st.booleans(), lambda rng: rng.random() < 0.5)
ITEMS = either(Draw(st.sampled_from(SIZES), lambda rng: rng.choice(SIZES)), integers(0, 40_000))
CHOICE = integers(0, 1000)
BY = integers(1, 2**31)

RULES: list[tuple[Callable[..., None], dict[str, Draw]]] = []


def rule(**draws: Draw) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(function: Callable[..., None]) -> Callable[..., None]:
        RULES.append((function, draws))
        strategies = {name: draw.strategy for name, draw in draws.items()}
        decorated: Callable[..., None] = hypothesis_rule(**strategies)(function)
        return decorated

    return register


class World:
    """The daemon of the moment, with a shelf at either end."""

    def __init__(self) -> None:
        self.near = Shelf()
        self.numbers = iter(range(1, 2**31))
        self.operations = 0
        self.start()

    def start(self) -> None:
        self.module = spawny.run_script(SCRIPT, name="arrays")
        self.far = self.module.shelf
        self.echo = self.module.echo
        self.lent_and_borrowed = self.module.lent_and_borrowed
        self.far_keys: list[int] = []

    def fresh(self) -> tuple[int, int]:
        """A key that was never used, and a seed."""
        key = next(self.numbers)
        return key, key * 7919 % 2**32

    def end(self) -> None:
        self.near.join()
        self.near.drop_all()
        self.module.terminate_daemon()

    def check(self) -> None:
        assert self.near.wrong() == []
        assert list(self.far.wrong()) == []

    def settle(self) -> None:
        """Nothing is kept any more: then nothing is lent or borrowed at either end."""
        self.near.join()
        assert self.far.join()
        self.near.drop_all()
        self.far.drop_all()
        self.far_keys = []

        gc.collect()  # an exception may be in a cycle with what it went through

        def is_settled() -> bool:
            return shelf.lent_and_borrowed() == (0, 0) == tuple(self.lent_and_borrowed())

        assert eventually(is_settled), (shelf.lent_and_borrowed(), self.lent_and_borrowed())


world: World  # of the test that runs


class Histories(RuleBasedStateMachine):
    """What may happen to arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.world = world
        self.near, self.far = world.near, world.far
        self.far_keys = world.far_keys

    # --- what is drawn ---

    # (No rule has a precondition: whether it holds would depend on when an interrupt came, which
    # hypothesis does not forgive.)

    def choose(self, keys: Iterable[int], choice: int) -> int | None:
        keys = list(keys)
        return keys[choice % len(keys)] if keys else None

    def add_far(self, *keys: int) -> None:
        self.far_keys += keys
        while len(self.far_keys) > KEPT:
            self.far.drop(self.far_keys.pop(0))

    def add_near(self, key: int, array: Any, seed: int) -> None:
        assert is_right(array, 0, seed)
        self.near.keep(key, array, seed)
        while len(self.near.kept) > KEPT:
            self.near.drop(next(iter(self.near.kept)))

    # --- transfers ---

    @rule(items=ITEMS, by=BY)
    def send(self, items: int, by: int) -> None:
        key, seed = self.world.fresh()
        array = pattern(items, seed)
        self.far.keep(key, array, seed)
        array += by  # of no concern to the other end any more
        self.add_far(key)

    @rule(items=ITEMS, is_kept=FLAG)
    def fetch(self, items: int, is_kept: bool) -> None:
        key, seed = self.world.fresh()
        self.add_near(key, self.far.make(key, items, seed, is_kept), seed)
        if is_kept:
            self.add_far(key)

    @rule(items=ITEMS)
    def echo(self, items: int) -> None:
        key, seed = self.world.fresh()
        self.add_near(key, self.world.echo(pattern(items, seed)), seed)

    @rule(choice=CHOICE)
    def send_what_is_kept(self, choice: int) -> None:
        """What may lie in a segment itself."""
        key = self.choose(self.near.kept, choice)
        if key is not None:
            kept, start, seed = self.near.kept[key]
            assert is_right(self.world.echo(kept), start, seed)

    @rule(sizes=lists(ITEMS, 0, 5), is_kept=FLAG)
    def several(self, sizes: list[int], is_kept: bool) -> None:
        wanted = [(*self.world.fresh(), items) for items in sizes]
        asked = [(key, items, seed, is_kept) for key, seed, items in wanted]
        for key, array in self.far.make_all(asked).items():
            seed = next(each[1] for each in wanted if each[0] == key)
            self.add_near(key, array, seed)
        if is_kept:
            self.add_far(*(each[0] for each in wanted))

    @rule(sizes=lists(ITEMS, 0, 5), by=BY)
    def send_several(self, sizes: list[int], by: int) -> None:
        arrays = {}
        for items in sizes:
            key, seed = self.world.fresh()
            arrays[key] = pattern(items, seed), seed
        self.far.keep_all(arrays)
        for array, _ in arrays.values():
            array += by
        self.add_far(*arrays)

    @rule(sizes=lists(ITEMS, 0, 5))
    def generate(self, sizes: list[int]) -> None:
        wanted = [(*self.world.fresh(), items) for items in sizes]
        asked = [(key, items, seed, False) for key, seed, items in wanted]
        arrays = list(self.far.generate(asked))
        for (key, seed, _), array in zip(wanted, arrays, strict=True):
            self.add_near(key, array, seed)

    @rule(items=ITEMS, by=BY, in_thread=integers(0, 9), is_kept=FLAG)
    def call_back(self, items: int, by: int, in_thread: int, is_kept: bool) -> None:
        key, seed = self.world.fresh()
        got: list[Any] = []

        def function(array: Any) -> Any:
            if is_kept:
                got.append(array)
            assert is_right(array, 0, seed)
            return array + 1

        call = self.far.call if in_thread else self.far.call_from_thread
        assert call(callback(function), key, items, seed, by)
        self.add_far(key)
        for array in got:
            self.add_near(key, array, seed)

    @rule(sizes=lists(ITEMS, 1, 4), by=BY)
    def batch(self, sizes: list[int], by: int) -> None:
        futures, keys = [], []
        with spawny.batch() as batch:
            for items in sizes:
                key, seed = self.world.fresh()
                array = pattern(items, seed)
                keys.append(key)
                batch.call(self.far.keep, key, array, seed)
                futures.append((key, seed, batch.call(self.world.echo, array)))
                array += by
        self.add_far(*keys)
        for key, seed, future in futures:
            self.add_near(key, future.result(), seed)

    @rule(items=ITEMS)
    def submit(self, items: int) -> None:
        key, seed = self.world.fresh()
        self.add_near(key, spawny.submit(self.world.echo, pattern(items, seed)).result(), seed)

    @rule(items=ITEMS, by=BY)
    def oneway(self, items: int, by: int) -> None:
        key, seed = self.world.fresh()
        array = pattern(items, seed)
        spawny.oneway(self.far.keep)(key, array, seed)
        array += by
        self.add_far(key)

    @rule(sizes=lists(ITEMS, 2, 3))
    def threads(self, sizes: list[int]) -> None:
        got: list[tuple[int, int, Any]] = []

        def work(items: int) -> None:
            key, seed = self.world.fresh()
            got.append((key, seed, self.world.echo(pattern(items, seed))))

        threads = [threading.Thread(target=work, args=(items,)) for items in sizes]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(got) == len(sizes)
        for key, seed, array in got:
            self.add_near(key, array, seed)

    # --- what owners do ---

    @rule(choice=CHOICE, by=BY)
    def mutate_near(self, choice: int, by: int) -> None:
        key = self.choose(self.near.kept, choice)
        if key is not None:
            self.near.mutate(key, by)

    @rule(choice=CHOICE, by=BY)
    def mutate_far(self, choice: int, by: int) -> None:
        key = self.choose(self.far_keys, choice)
        if key is not None:
            self.far.mutate(key, by)

    @rule(choice=CHOICE, begin=SHARE, end=SHARE)
    def cut_near(self, choice: int, begin: float, end: float) -> None:
        key = self.choose(self.near.kept, choice)
        if key is not None:
            self.near.cut(key, begin, end)

    @rule(choice=CHOICE, begin=SHARE, end=SHARE)
    def cut_far(self, choice: int, begin: float, end: float) -> None:
        key = self.choose(self.far_keys, choice)
        if key is not None:
            self.far.cut(key, begin, end)

    @rule(choice=CHOICE)
    def drop_near(self, choice: int) -> None:
        key = self.choose(self.near.kept, choice)
        if key is not None:
            self.near.drop(key)

    @rule(choice=CHOICE)
    def drop_far(self, choice: int) -> None:
        key = self.choose(self.far_keys, choice)
        if key is not None:
            self.far_keys.remove(key)
            self.far.drop(key)

    @rule(often=integers(0, 4))
    def check(self, often: int) -> None:
        if not often:
            self.world.check()

    # --- what goes wrong ---

    @rule(rarely=integers(0, 19), is_near=FLAG, by=BY)
    def fork(self, rarely: int, is_near: bool, by: int) -> None:
        if not rarely:
            assert self.near.join() and self.far.join()
            assert (self.near if is_near else self.far).fork(by)

    @rule()
    def join(self) -> None:
        if self.near._child is not None:
            assert self.near.join()

    @rule(items=ITEMS, microseconds=integers(0, 3000), by_time=FLAG)
    def interrupt(self, items: int, microseconds: int, by_time: bool) -> None:
        key, seed = self.world.fresh()
        array = pattern(items, seed)
        got = None
        if by_time:
            with suppress(spawny.CallTimeout), spawny.timeout(microseconds / 1e6):
                got = self.far.make(key, items, seed, True)
        else:
            with suppress(KeyboardInterrupt), ctrl_c_after(microseconds / 1e6):
                self.far.keep(key, array, seed)
        if got is not None:
            self.add_near(key, got, seed)
        if key in list(self.far.keys()):  # nobody knows how far it came
            self.add_far(key)

    @rule(rarely=integers(0, 199))
    def kill_the_daemon(self, rarely: int) -> None:
        if not rarely:
            kill_and_start_anew(self.world)
            self.far, self.far_keys = self.world.far, self.world.far_keys

    @rule(rarely=integers(0, 199), loops=integers(0, 30))
    def kill_a_client(self, rarely: int, loops: int) -> None:
        if not rarely:
            kill_a_client(self.world, loops)

    @invariant()
    def count(self) -> None:
        self.world.operations += 1

    def teardown(self) -> None:
        self.world.check()
        self.world.settle()


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    """Press Ctrl-C after so long, if this goes on until then."""

    def press(number: int, frame: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGALRM, press)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds + 1e-6)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def kill_and_start_anew(world: World) -> None:
    pid = spawny.daemon(world.module).pid
    psutil.Process(pid).kill()
    with pytest.raises(spawny.DaemonDied):
        while True:
            world.echo(pattern(100_000, 1))
    assert world.near.wrong() == []
    world.start()


def kill_a_client(world: World, loops: int) -> None:
    client = subprocess.Popen([sys.executable, "-c", DOOMED, "arrays"], stdout=subprocess.PIPE)
    assert client.stdout is not None
    for _ in range(loops):
        client.stdout.readline()
    client.kill()
    client.wait()
    client.stdout.close()


def run(operations: int) -> None:
    settings = hypothesis.settings(
        max_examples=max(1, operations // OPERATIONS_A_RUN),
        stateful_step_count=OPERATIONS_A_RUN,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(Histories, settings=settings)


def run_at_random(operations: int, rng: Random, tell: Callable[[int], object]) -> None:
    """The same rules without hypothesis, which tells of none of them how to make it smaller."""
    for begin in range(0, operations, OPERATIONS_A_RUN):
        histories = Histories()
        for _ in range(min(OPERATIONS_A_RUN, operations - begin)):
            function, draws = rng.choice(RULES)
            function(histories, **{name: draw.at_random(rng) for name, draw in draws.items()})
            histories.count()
        histories.teardown()
        tell(world.operations)


def what_is_open() -> tuple[list[str], list[str]]:
    """At either end, once it is idle: and then no memory is shared any more."""
    gc.collect()
    assert eventually(lambda: shelf.mapped() == 0 == world.module.mapped())
    return shelf.descriptors(), list(world.module.descriptors())


@contextmanager
def whole_world() -> Iterator[None]:
    """A world in which nothing is left of all that happens, and in which Ctrl-C interrupts, also
    where whoever started us ignores it. What an interrupt in a finalizer loses is no failure."""
    global world
    ignored: list[Any] = []

    def note(args: Any) -> None:
        if not isinstance(args.exc_value, KeyboardInterrupt):
            ignored.append((args.err_msg, repr(args.object), repr(args.exc_value)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", note)
        patch.setattr(lender, "KEEP_SECONDS", 1)
        before_signal = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            names = shelf.named()
            world = World()
            run(OPERATIONS_A_RUN)  # has made all that is made once
            before = what_is_open()
            yield
            assert what_is_open() == before
            assert eventually(lambda: shelf.named() <= names)
            assert not ignored
            world.end()
        finally:
            signal.signal(signal.SIGINT, before_signal)


@pytest.mark.timeout(OPERATIONS / 50 + 120)
def test_any_history(home: Path) -> None:
    """Each array is at each time what its owner made of it, and nothing is left of all."""
    with whole_world():
        run(OPERATIONS)
