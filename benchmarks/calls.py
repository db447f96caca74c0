"""How long a call takes that does nothing: what spawny itself costs, beside its peers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack

import libraries
import original
import peers
import placement
from harness import Figure, Section, interleave, median_ratio, percentile, private_home
from peers import CALLS_PER_ROUND, SECONDS_PER_ROUND, Peer
from placement import Pin

FLOOR = "bare unix socket + pickle, blocking"
LOOKING = "the same, and both ends spin before they block"
FUNCTION = "spawny, function: f = m.noop; f()"
METHOD = "spawny, method: p.noop()"
MANAGER = "multiprocessing.managers"
EXECUTOR = "ProcessPoolExecutor"
RPYC = "rpyc"

FASTEST = "fastest round"
TAKES = {FUNCTION: "spawny's function takes", METHOD: "its method"}

# Of these, calls are measured in each placement.
PLACED: dict[str, Callable[[], AbstractContextManager[Peer | None]]] = {
    FLOOR: peers.bare_socket,
    LOOKING: peers.looking_socket,
    FUNCTION: peers.spawny_function,
    METHOD: peers.spawny_method,
    "multiprocessing.Pipe, echo": peers.pipe,
    MANAGER: peers.manager,
}

# What a call of spawny's is to take at most, as a share of a peer's. Not where both ends share a
# core: there a bare socket whose ends do not spin is the fastest that there is.
GOALS = {FLOOR: 0.6, MANAGER: 0.35, RPYC: 0.15}

METHOD_TEXT = (
    f"Round trips, each peer in each of {{rounds}} rounds of {CALLS_PER_ROUND} calls or"
    f" {SECONDS_PER_ROUND} s. A round gives a median (p50) and a p99; shown are the medians of"
    " those over all rounds, and the p50 of the fastest one. What spawny takes is the median of the"
    " ratios within each round. No goal can be below what the bare sockets that spin take of those"
    " that block."
)

Key = tuple[str, str]


def measure(rounds: int, *, has_libraries: bool = True) -> list[Section]:
    """Medians and p99 of all, and spawny's ratios to them; a section for each placement."""
    places = placement.placements()
    with private_home(), ExitStack() as stack:
        running = _start(stack, PLACED)
        everywhere = list(running)
        if has_libraries:
            running |= _start(stack, libraries.available())
            everywhere += [RPYC] if RPYC in running else []
            running |= _start(stack, {EXECUTOR: peers.executor, original.TITLE: original.calls})
        stack.callback(placement.release)
        keys = [
            (place, name)
            for place in places
            for name in (running if place == placement.FREE else everywhere)
        ]
        slowest: dict[Key, list[float]] = {key: [] for key in keys}
        medians = interleave(
            {
                (place, name): _round(running[name], places[place], slowest[place, name])
                for place, name in keys
            },
            rounds,
        )
    return [
        Section(
            f"A call that does nothing, {place}",
            METHOD_TEXT.format(rounds=rounds),
            tuple(
                figure
                for key in keys
                if key[0] == place
                for figure in _figures(key, medians, slowest[key])
            ),
        )
        for place in places
    ]


def _start(
    stack: ExitStack, peers: Mapping[str, Callable[[], AbstractContextManager[Peer | None]]]
) -> dict[str, Peer]:
    """Those who are to be had."""
    started = {name: stack.enter_context(peer()) for name, peer in peers.items()}
    return {name: peer for name, peer in started.items() if peer is not None}


def _round(peer: Peer, pin: Pin, slowest: list[float]) -> Callable[[], float]:
    """A round's median in microseconds; its p99 goes into `slowest`."""

    def run() -> float:
        pin(peer.pid)
        times = peer.round()
        slowest.append(percentile(times, 99) / 1000)
        return statistics.median(times) / 1000

    return run


def _figures(key: Key, medians: Mapping[Key, list[float]], slowest: list[float]) -> list[Figure]:
    place, name = key
    found = [
        Figure(name, min(medians[key]), "µs", column=FASTEST),
        Figure(name, statistics.median(medians[key]), "µs", column="p50"),
        Figure(name, statistics.median(slowest), "µs", column="p99"),
    ]
    if name in TAKES:
        return found
    for ours, column in TAKES.items():
        has_goal = ours == FUNCTION and place != placement.ONE_CORE
        limit = GOALS.get(name) if has_goal else None
        ratio = median_ratio(medians[place, ours], medians[key])
        found.append(Figure(name, ratio, "x", limit=limit, column=column))
    return found
