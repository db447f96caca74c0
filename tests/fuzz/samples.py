"""Valid messages of the three protocols, and the same made wrong.

What a request does to user objects is no matter here: whoever may connect may run code. So the
pickles of the call channel are data: lists, tuples, numbers and text, and after a mutation still
nothing but opcodes of data, see `is_data`. Frames that are meant to end their receiver (TERMINATE,
Shutdown) or its link (POKE), and those that start processes, are left out where a live one reads.
"""

import json
import pickle
import pickletools
import random
from typing import Any

from spawny import control
from spawny.kernel import link, wire
from tests.fuzz.mutation import Mutator

# --- the control plane -------------------------------------------------------------------------

_START = control.StartDaemon(
    name="fuzzed",
    token="0123456789abcdef",
    digest="d",
    summary="s",
    python="/nowhere/python",
    python_is_default=False,
    caller_python="/nowhere/python",
    environ={"A": "1"},
    cwd="/",
    sys_path=["/tmp"],
    preload=["json"],
    definition=b"definition",
)

_STATUS = control.DaemonStatus("n", "ready", 1, "/p", 1.0, 2, 3.0, 4, 5, 6, busy_seconds=1.0)

MESSAGES: tuple[control.Message, ...] = (
    control.Hello("3"),
    _START,
    control.FindDaemon("fuzzed"),
    control.ListDaemons(),
    control.ListDaemons("fuzzed"),
    control.StopDaemon("fuzzed"),
    control.RestartDaemon("fuzzed"),
    control.RenewDaemon("fuzzed", pid=4711, digest="d", definition=b"payload"),
    control.InterruptDaemon("fuzzed"),
    control.WatchEvents(),
    control.UnwatchEvents(),
    control.Welcome("3", 1, "/p", False),
    control.Started("n", 1, "/p", True),
    control.Listing((_STATUS, _STATUS)),
    control.Done("x"),
    control.Event("ready", "n", 1.0),
    control.Refused("DaemonDied", "m"),
)

# Whatever fields they have: what only the supervisor sends does nothing to it.
REQUESTS = MESSAGES[:10]


def control_frames(mutator: Mutator, messages: tuple[control.Message, ...]) -> list[bytes]:
    """The frames of a message, with a value, some bytes or the number of frames made wrong."""
    rng = mutator.rng
    header, *binary = control.encode(rng.choice(messages), rng.randrange(1, 1000))
    what = rng.random()
    if what < 0.6:
        header = json.dumps(mutator.value(json.loads(header))).encode()
    elif what < 0.9:
        header = mutator.bytes(header)
    elif what < 0.95:
        binary.append(rng.randbytes(8))
    elif binary:
        binary.pop()
    else:
        return []
    return [header, *binary]


# --- the link ----------------------------------------------------------------------------------

# A pid that Linux gives to no process.
NOBODY = 4_194_304 + 1

HEADERS: tuple[dict[str, Any], ...] = (
    {
        "type": "hello",
        "link": link.PROTOCOL,
        "name": "fuzzed",
        "token": "0123456789abcdef",
        "pid": NOBODY,
        "executable": "/usr/bin/python3",
        "version": [3, 11, 7],
        "implementation": "cpython",
        "state": "ready",
        "clients": 0,
        "calls": 0,
    },
    {"type": "ready", "seconds": 0.5},
    {"type": "failed", "error": "ValueError: x", "traceback": "Traceback"},
    {"type": "clients", "clients": 3},
    {"type": "pong", "id": 0, "clients": 1, "calls": 2, "busy": None},
    {
        "type": "pong",
        "id": 0,
        "clients": 1,
        "calls": 2,
        "busy": {"call": 1, "what": "fit()", "client_pid": 1, "seconds": 0.5},
    },
    {"type": "interrupted", "id": 1, "done": True},
    {"type": "stacks", "id": 1, "text": "x"},
    {"type": "ending", "reason": "x"},
)


def link_bytes(mutator: Mutator) -> bytes:
    """Some frames one after the other, the last made wrong in its values or its bytes."""
    rng = mutator.rng
    valid = [link.encode(rng.choice(HEADERS)) for _ in range(rng.randrange(3))]
    if rng.random() < 0.6:
        valid.append(link.encode(mutator.value(rng.choice(HEADERS))))
    else:
        valid.append(mutator.bytes(link.encode(rng.choice(HEADERS))))
    return b"".join(valid)


# --- the call channel --------------------------------------------------------------------------

HELLO = (wire.PROTOCOL, "fuzzed", wire.ROLE_CALLS, 4711, 4, None, False)

# (kind, the fields of its body): what may begin a connection, and what may follow on one.
FIRST: tuple[tuple[int, Any], ...] = (
    (wire.HELLO, HELLO),
    (wire.HELLO, HELLO),
    (wire.HELLO, (*HELLO[:2], wire.ROLE_EVENTS, *HELLO[3:])),
    (wire.HELLO, (*HELLO[:5], "parent", True)),
    (wire.INTERRUPT, (1, 1)),
    (wire.PASS, ("fuzzed", 1, 4096)),
    (wire.FETCH, ("fuzzed", 1)),
    (wire.STREAMS, ("fuzzed",)),
    (wire.BUSY, ()),
)

# Of an object that the fuzzed script has; oid 0 is the script's module.
REQUEST: tuple[tuple[int, Any], ...] = (
    (wire.CALL, (1, (1,), {})),
    (wire.METHOD, (0, "echo", ("x",), {})),
    (wire.AWAIT, (0, "echo", ("x",), {})),
    (wire.GETATTR, (0, "echo")),
    (wire.PROGRAM, ("code", "pass", ["-c"], "", "/", "utf-8")),
    (wire.SETATTR, (0, "variable", 1)),
    (wire.DELATTR, (0, "nothing")),
    (wire.OPERATE, (0, "__eq__", (1,))),
    (wire.NEXT, (0, 10, 0.01, 0, False)),
    (wire.PUTBACK, (0, 1)),
    (wire.GETVALUE, (0,)),
    (wire.DESCRIBE, (0,)),
    (wire.HELD, (1,)),
    (wire.RELEASE, [(1, 1)]),
    (wire.INSPECT, (0, "echo")),
    (wire.SEGMENTS, ([(1, 1)], [1], [2])),
)
NUMBERED = (wire.RETURN, wire.RAISE)

FLAGS = (0, 0, 0, 0, wire.KEEP, wire.NESTED, wire.ONEWAY, wire.PIPELINED, wire.WITH_REFERENCES)
MORE_FLAGS = (wire.WITH_BUFFERS, wire.LOST, 255)

# Opcodes that make an object of a class, call something, or take what is not in the pickle.
_NO_DATA = frozenset(
    (
        *("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"),
        *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
    )
)
# The unpickler makes room for as many, whether it can or not: a bomb, and the user's own.
_MEMO_LIMIT = 10_000


def is_data(body: bytes) -> bool:
    """Whether an unpickler gets to see opcodes of data alone, however it goes on."""
    try:
        for opcode, argument, _ in pickletools.genops(body):
            if opcode.name in _NO_DATA:
                return False
            if opcode.name.endswith("PUT") and int(argument) > _MEMO_LIMIT:
                return False
    except Exception:
        pass  # an unpickler gives up there as well, or soon
    return True


# The one ends the daemon, the other its link, whose other end the fuzzer holds.
_EFFECTIVE = bytes((wire.TERMINATE, wire.POKE))


def call_frame(mutator: Mutator, choices: tuple[tuple[int, Any], ...]) -> bytes:
    """A frame with its values, its pickle, its flags or its header made wrong."""
    rng = mutator.rng
    kind, values = rng.choice(choices)
    flags = rng.choice(FLAGS if rng.random() < 0.9 else MORE_FLAGS)
    what = rng.random()
    if what < 0.5:
        values = mutator.value(values)
    body = _pickled(values, rng)
    if kind in NUMBERED or rng.random() < 0.02:
        body = wire.NUMBER.pack(rng.randrange(3)) + body
    if 0.5 <= what < 0.75:
        changed = mutator.bytes(body)
        body = changed if is_data(changed) else body
    elif 0.75 <= what < 0.8:
        kind = rng.randrange(256)
    if kind in _EFFECTIVE:
        kind = wire.INTERRUPT
    data = wire.frame(kind, body, flags)
    if what >= 0.9:
        data = mutator.bytes(data[: wire.HEADER_BYTES]) + data[wire.HEADER_BYTES :]
        if data[8:9] in _EFFECTIVE:
            data = wire.frame(wire.INTERRUPT)
    return data


def _pickled(values: Any, rng: random.Random) -> bytes:
    try:
        return pickle.dumps(values, rng.choice((2, 3, 4)))
    except UnicodeEncodeError:  # a lone surrogate
        return pickle.dumps("surrogate", 2)
