"""A control-plane peer that misbehaves in one way, for what a real supervisor does too seldom.

Run as `python -m tests.client.router MODE` under a SPAWNY_HOME; prints READY, then the type of
each request that it gets.
"""

import json
import os
import sys
from collections.abc import Callable

import zmq

from spawny import control, paths

Reply = Callable[[control.Message, int], None]
SPEND = iter(range(1000))


def dies(request: control.Message, reply: Reply) -> None:
    """End in the middle of the first request."""
    os._exit(0)


def mute(request: control.Message, reply: Reply) -> None:
    """Say nothing, ever."""


def slow(request: control.Message, reply: Reply) -> None:
    """Answer Hello at once and everything else after being asked for life twice."""
    if isinstance(request, control.Hello):
        reply(control.Welcome("0", os.getpid(), sys.executable, False), 2)
        if next(SPEND) == 1:
            reply(control.Done("at last"), 1)


def eager(request: control.Message, reply: Reply) -> None:
    """Have events before the subscription is confirmed, and one after it; then end."""
    if isinstance(request, control.WatchEvents):
        reply(control.Event("started", "early", 1.0), 1)
        reply(control.Done("watching"), 1)
    else:
        reply(control.Welcome("0", os.getpid(), sys.executable, False), 2)
        reply(control.Event("started", "late", 2.0), 1)
        sys.exit()


def confused(request: control.Message, reply: Reply) -> None:
    """Answer something else than was asked."""
    reply(control.Done("what?"), 1)


def newer(request: control.Message, reply: Reply) -> None:
    """Answer Hello, and everything else with what is not frozen."""
    if isinstance(request, control.Hello):
        reply(control.Welcome("0", os.getpid(), sys.executable, False, 99), 1)
    else:
        reply(control.Progress("soon"), 1)


def main(mode: str) -> None:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    here = paths.locate()
    paths.make_private(here.runtime)
    here.supervisor_socket.unlink(missing_ok=True)
    router.bind(f"ipc://{here.supervisor_socket}")
    print("READY", flush=True)
    try:
        serve(router, mode)
    finally:
        context.destroy(linger=1000)  # the last answers leave


def serve(router: "zmq.Socket[bytes]", mode: str) -> None:
    behave = globals()[mode.removesuffix("-foreign")]
    while True:
        client, *frames = router.recv_multipart()
        request = control.decode(frames).message
        print(type(request).__name__, flush=True)

        def reply(message: control.Message, number: int, client: bytes = client) -> None:
            head, *binary = control.encode(message, number)
            if mode.endswith("-foreign"):
                head = json.dumps(json.loads(head) | {"protocol": 99}).encode()
            router.send_multipart([client, head, *binary])

        behave(request, reply)


if __name__ == "__main__":
    main(sys.argv[1])
