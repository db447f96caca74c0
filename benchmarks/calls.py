"""How long a call takes that does nothing: what spawny itself costs, beside its peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec

import peers
import placement
from harness import Figure, Section, interleave, median_ratio, percentile, private_home
from peers import Peer
from placement import Pin

FLOOR = "bare blocking unix socket + pickle"
FUNCTION = "spawny, function: f = m.noop; f()"
METHOD = "spawny, method: p.noop()"
MANAGER = "multiprocessing.managers"
RPYC = "rpyc, unix socket"

PEERS = {
    FLOOR: peers.bare_socket,
    FUNCTION: peers.spawny_function,
    METHOD: peers.spawny_method,
    "multiprocessing.Pipe, echo": peers.pipe,
    MANAGER: peers.manager,
    RPYC: peers.rpyc_server,
}

# What spawny's calls are to take at most, as a share of a peer's.
GOALS = {FLOOR: 0.6, MANAGER: 0.35, RPYC: 0.15}

# Long enough that a round's median is steady, short enough that a round sees one load.
CALLS_PER_ROUND = 1000

METHOD_TEXT = (
    f"Round trips of {CALLS_PER_ROUND} calls at a time, each peer in each of {{rounds}} rounds. A"
    " round gives a median (p50) and a p99; shown are the medians of those over all rounds. A ratio"
    " is the median of the ratios within each round."
)

Key = tuple[str, str]


def measure(rounds: int) -> list[Section]:
    """Medians and p99 of all, and spawny's ratios to them; a section for each placement."""
    names = [name for name in PEERS if name != RPYC or find_spec("rpyc")]
    places = placement.placements()
    slowest: dict[Key, list[float]] = {(place, name): [] for place in places for name in names}
    with private_home(), ExitStack() as stack:
        running = {name: stack.enter_context(PEERS[name]()) for name in names}
        stack.callback(placement.release)
        candidates = {
            (place, name): _round(running[name], places[place], slowest[place, name])
            for place, name in slowest
        }
        medians = interleave(candidates, rounds)
    return [
        Section(
            f"A call that does nothing, {place}",
            METHOD_TEXT.format(rounds=rounds),
            (
                *(_time(name, medians[place, name], slowest[place, name]) for name in names),
                *_ratios({name: medians[place, name] for name in names}),
            ),
        )
        for place in places
    ]


def _round(peer: Peer, pin: Pin, slowest: list[float]) -> Callable[[], float]:
    """A round's median in microseconds; its p99 goes into `slowest`."""
    clock, noop = time.perf_counter_ns, peer.noop

    def run() -> float:
        pin(peer.pid)
        for _ in range(CALLS_PER_ROUND // 10):  # both processes have slept since their last round
            noop()
        times = []
        for _ in range(CALLS_PER_ROUND):
            began = clock()
            noop()
            times.append(clock() - began)
        slowest.append(percentile(times, 99) / 1000)
        return statistics.median(times) / 1000

    return run


def _time(name: str, medians: list[float], slowest: list[float]) -> Figure:
    note = f"p99 {statistics.median(slowest):.1f} µs"
    return Figure(name, statistics.median(medians), "µs", note=note)


def _ratios(medians: dict[str, list[float]]) -> list[Figure]:
    return [
        Figure(f"{ours.partition(':')[0]} / {name}", ratio, "x", limit=GOALS.get(name))
        for ours in (FUNCTION, METHOD)
        for name in medians
        if name not in (FUNCTION, METHOD)
        for ratio in [median_ratio(medians[ours], medians[name])]
    ]
