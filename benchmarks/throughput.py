"""How many calls a second there can be: pipelined, of several clients, to several daemons."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import callers
from harness import Figure, Section, interleave, median_ratio, private_home

COUNTS = (1, 2, 8)
SECONDS = 0.2

ONE_BY_ONE, BATCHES = "spawny, one by one", "spawny, in batches"
BESIDE = ("multiprocessing.managers", "rpyc, one by one")

# Of one client; and where there are more processes than cores.
BATCHES_GOAL = 150_000.0
ALONE, CROWD = (1, 1), (8, 8)

METHOD = (
    "Calls a second that do nothing, of all clients together, as the scheduler likes. Clients are"
    " processes; each has a daemon of its own, shares one, or takes turns among several."
    f" What is in batches, submitted or gathered by asyncio is {callers.MANY} calls at a time, each"
    f" with its Future; of rpyc's asynchronous calls {callers.FEW}, since with hundreds both"
    " ends wait for each other. One-way calls are followed by one that is answered. The median of"
    f" {{rounds}} rounds of {SECONDS} s."
)

Place = tuple[int, int]


def measure(
    rounds: int, ways: Sequence[str] = tuple(callers.WAYS), counts: Sequence[int] = COUNTS
) -> Section:
    """Calls a second of each way, for each number of clients and of daemons."""
    ways = [way for way in ways if "rpyc" not in way or find_spec("rpyc")]
    places = [(clients, daemons) for clients in counts for daemons in counts]
    with private_home(), ExitStack() as stack:
        kinds = dict.fromkeys(callers.WAYS[way].kind for way in ways)
        served = {kind: kind.serve(stack, max(counts)) for kind in kinds}
        clients = [stack.enter_context(callers.client()) for _ in range(max(counts))]
        rates = interleave(
            {
                (way, place): _round(way, place, clients, served[callers.WAYS[way].kind])
                for way in ways
                for place in places
            },
            rounds,
        )
    figures = [
        Figure(
            way,
            statistics.median(rates[way, place]),
            "/s",
            least=BATCHES_GOAL if (way, place) == (BATCHES, ALONE) else None,
            column=_told(place),
        )
        for way, place in rates
    ]
    figures += [
        Figure(
            f"{ONE_BY_ONE} / {peer}, {_told(place)}",
            median_ratio(rates[ONE_BY_ONE, place], rates[peer, place]),
            "x",
            least=1.0 if place == CROWD else None,
        )
        for place in (ALONE, CROWD)
        for peer in BESIDE
        if (ONE_BY_ONE, place) in rates and (peer, place) in rates
    ]
    return Section("Calls a second", METHOD.format(rounds=rounds), tuple(figures))


def _told(place: Place) -> str:
    return f"{place[0]} to {place[1]}"


def _round(
    way: str, place: Place, clients: Sequence[Connection], addresses: Sequence[Any]
) -> Callable[[], float]:
    """A round's calls a second, of all clients."""
    active = clients[: place[0]]
    daemons = addresses[: place[1]]

    def run() -> float:
        for number, each in enumerate(active):
            # Its share; where there are fewer daemons than clients, one that others have as well.
            each.send((way, daemons[number :: len(active)] or [daemons[number % len(daemons)]]))
        for each in active:
            each.recv()  # ready
        for each in active:
            each.send(SECONDS)
        return sum(each.recv() for each in active)

    return run
