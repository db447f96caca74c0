"""A client script: sends ten kinds of function to a daemon of the interpreter given, and prints as
JSON what came of each, "right" as a rule."""

import asyncio
import functools
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import spawny

SCRIPT = """
import asyncio

def call(f, *args, **kwargs):
    return f(*args, **kwargs)

def exhaust(f, *args):
    return list(f(*args))

def complete(f, *args):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(f(*args))
    finally:
        loop.close()
"""

FACTOR = 3


def plain(n: int) -> int:
    return n * FACTOR


def adder(a: int) -> Callable[[int], int]:
    def add(b: int) -> int:
        return a + b

    return add


def factorial(n: int) -> int:
    return 1 if n < 2 else n * factorial(n - 1)


def generate(n: int) -> Iterator[int]:
    got = 0
    while got < n:
        got += 1
        yield from (got, -got)


async def numbers(n: int) -> AsyncIterator[int]:
    for each in range(n):
        await asyncio.sleep(0)
        yield each


async def coroutine(n: int) -> int:
    return sum([each async for each in numbers(n)])


class Base:
    def __init__(self, value: int) -> None:
        self.__value = value

    def total(self) -> int:
        return self.__value


class Derived(Base):
    def total(self) -> int:
        return super().total() * 2


def make_derived(value: int) -> tuple[int, bool]:
    derived = Derived(value)
    return derived.total(), isinstance(derived, Base)


def counting(times: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return calls, [function(*args)] * times

        return wrapper

    return decorate


@counting(2)
@counting(1)
def decorated(text: str) -> str:
    return text.upper()


def defaults(a: int, b: int = 2, *rest: int, c: object = (), **others: int) -> object:
    return a, b, rest, c, others


squares = {"square": lambda n: n * n, "cube": lambda n: n * n * n}


def right_or_not(run: Callable[[], object], wanted: object) -> str:
    try:
        got = run()
    except spawny.SerializationError as refusal:
        return f"refused: {refusal}"
    except BaseException as error:  # told to the test
        return f"failed: {error!r}"
    return "right" if got == wanted else f"wrong: {got!r}"


def main() -> None:
    quiet = logging.getLogger("quiet")
    quiet.setLevel(logging.ERROR)
    daemon: Any = spawny.run_script(SCRIPT, python_exe=sys.argv[1], logger=quiet)
    decorated("here")  # what it has counted goes with it
    found = {
        "plain": right_or_not(lambda: daemon.call(plain, 4), 12),
        "closure": right_or_not(lambda: daemon.call(adder(40), 2), 42),
        "recursive": right_or_not(lambda: daemon.call(factorial, 6), 720),
        "generator": right_or_not(lambda: daemon.exhaust(generate, 2), [1, -1, 2, -2]),
        "async": right_or_not(lambda: daemon.complete(coroutine, 4), 6),
        "class with super": right_or_not(lambda: daemon.call(make_derived, 21), (42, True)),
        "lambda": right_or_not(
            lambda: [daemon.call(f, 3) for f in squares.values()],
            [9, 27],
        ),
        "decorated": right_or_not(
            lambda: daemon.call(decorated, "a"), (2, [(2, ["A"]), (2, ["A"])])
        ),
        "defaults": right_or_not(
            lambda: daemon.call(defaults, 1, c=4, d=5), (1, 2, (), 4, {"d": 5})
        ),
        "method": right_or_not(lambda: daemon.call(Derived(4).total), 8),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
