"""What states a daemon goes through, as one table; the diagram in the docs is drawn from it.

The rule: every state has an answer to every input, and nothing outside this file sets a state. An
input that means nothing in a state (a link lost long after the process was) leaves it as it is.
"""

from __future__ import annotations

from enum import Enum, StrEnum


class State(StrEnum):
    """Where a daemon stands. What people are shown is finer, see `policy.shown_state`."""

    STARTING = "starting"  # spawned; the interpreter is coming up
    LOADING = "loading"  # linked, running its definition
    READY = "ready"  # serving calls
    UNLINKED = "unlinked"  # alive, but not in touch; it phones home by itself
    STOPPING = "stopping"  # asked to end, or ending by itself; signals follow
    SWEEPING = "sweeping"  # gone; what it left in its session is being ended
    WAITING = "waiting"  # gone; to be restarted at a known time
    FAILED = "failed"  # gone; given up, until somebody starts it
    ENDED = "ended"  # gone; only how it ended is remembered


class Input(Enum):
    """What can happen to it, as far as its state is concerned."""

    START = "start"  # by hand, or since the wait is over
    HELLO_NEW = "hello, new"  # it phoned home and wants its definition
    HELLO_LOADING = "hello, loading"
    HELLO_READY = "hello, ready"
    LOADED = "definition loaded"
    LINK_LOST = "link lost"
    KEPT = "kept"  # it was to be restarted, but its state cannot be saved
    STOP = "stop"  # by request, on a missed deadline, or by its own decision
    EXIT = "exit"  # the process is gone
    RETRY = "restart later"  # what the policy says once nothing is left of it:
    GIVE_UP = "give up"
    CLOSE = "not to be restarted"


# Where a process exists. (SWEEPING is not among them: only what it left behind may.)
ALIVE = frozenset({State.STARTING, State.LOADING, State.READY, State.UNLINKED, State.STOPPING})

# Where somebody may still be served, after the restart at the latest.
SUPERVISED = ALIVE | {State.SWEEPING, State.WAITING}


# A dot: stays as it is.
_GRID = """
               starting loading  ready    unlinked stopping sweeping waiting  failed   ended
START          .        .        .        .        .        .        starting starting starting
HELLO_NEW      loading  .        loading  loading  .        .        .        .        .
HELLO_LOADING  loading  .        loading  loading  .        .        .        .        .
HELLO_READY    ready    ready    .        ready    .        .        .        .        .
LOADED         .        ready    .        .        .        .        .        .        .
LINK_LOST      .        unlinked unlinked .        .        .        .        .        .
KEPT           .        .        .        .        ready    .        .        .        .
STOP           stopping stopping stopping stopping .        .        .        .        .
EXIT           sweeping sweeping sweeping sweeping sweeping .        .        .        .
RETRY          waiting  .        .        .        waiting  waiting  .        .        .
GIVE_UP        failed   .        .        .        failed   failed   .        .        .
CLOSE          ended    .        .        .        ended    ended    ended    ended    .
"""


def _parse(grid: str) -> dict[State, dict[Input, State]]:
    head, *rows = (line.split() for line in grid.strip().splitlines())
    states = [State(word) for word in head]
    return {
        state: {
            Input[row[0]]: state if row[1 + column] == "." else State(row[1 + column])
            for row in rows
        }
        for column, state in enumerate(states)
    }


TABLE = _parse(_GRID)


def advance(state: State, happened: Input) -> State:
    """The state after `happened`."""
    return TABLE[state][happened]


def diagram() -> str:
    """The table as a Mermaid state diagram; inputs that change nothing are left out."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.STARTING.value}"]
    for state, row in TABLE.items():
        arrows: dict[State, list[str]] = {}
        for happened, following in row.items():
            if following is not state:
                arrows.setdefault(following, []).append(happened.value)
        lines += [
            f"    {state.value} --> {following.value}: {' / '.join(inputs)}"
            for following, inputs in arrows.items()
        ]
    lines.append(f"    {State.ENDED.value} --> [*]")
    return "\n".join(lines) + "\n"
