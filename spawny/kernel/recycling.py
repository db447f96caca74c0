"""Making room for a successor: between calls, with the state saved, or not at all.

The one rule: what runs goes on to its end, and whatever it may need goes on with it. So other
requests are carried out while a call waits for its callback, and while a coroutine runs. Otherwise
requests for the root wait, and for what it has by name: they are made in the next daemon. Those for
other objects, which that will not have, are still carried out for a moment, as somebody who has
just got one is about to use it; and until the results of coroutines are fetched.

The main thread asks these questions; the control thread gives the order.
"""

import time

from . import wire
from .failures import describe_error, format_error

SETTLE_SECONDS = 0.05

_WAITING = frozenset(
    (wire.CALL, wire.METHOD, wire.GETATTR, wire.SETATTR, wire.DELATTR, wire.OPERATE, wire.GETVALUE)
    + (wire.AWAIT, wire.INSPECT)
)


class Recycling:
    """An order of the supervisor to end, from when it comes until the daemon ends or is kept.

    `is_urgent`: what runs is interrupted. `is_on_request`: the daemon ends only when a request for
    its root comes, as it would else end for want of clients before one of them is back.
    """

    def __init__(self, reason, token, is_urgent, is_on_request):
        self.reason = reason
        self.token = token
        self.is_urgent = is_urgent
        self.is_on_request = is_on_request
        self.saves_as = None  # the token, once the state is being saved
        self.has_saved = False
        self.settles_at = time.monotonic() + SETTLE_SECONDS

    def is_due(self, server, connections):
        """Is nothing under way any more?"""
        if is_in_use(server) or server.tasks.is_awaited or time.monotonic() < self.settles_at:
            return False
        return not self.is_on_request or any(each.frames for each in connections)

    def answer_all(self, server, connection):
        """What `server` does with what has come while this is in force; False when no more should
        be read now."""
        frames = connection.frames
        while frames:
            kind, flags, body = frames[0]
            if not is_in_use(server) and _waits(kind, flags, body):
                return False
            frames.popleft()
            if not server.calls.answer(connection, kind, flags, body) or server.is_ending:
                return False
        return True


def is_in_use(server):
    """May something that is under way depend on other requests?"""
    return bool(server.calls.waiting or server.tasks.is_under_way)


def tell(error):
    """(text, traceback) of what kept the state from being saved."""
    _, name, message = describe_error(error)
    return "%s: %s" % (name, message), format_error(error)


def _waits(kind, flags, body):
    if kind not in _WAITING or flags & (wire.ONEWAY | wire.NESTED):
        return False
    if flags & wire.WITH_BUFFERS:
        return False  # it is not worth a look; should it come too late, it is told so
    return is_on_root(body)


def is_on_root(body):
    """Does this pickle of a tuple begin with the root's number, or with what that has by name?"""
    start = bytes(body[:16])
    if start[:1] == b"\x80":
        start = start[2:]
    if start[:1] == b"\x95":
        start = start[9:]
    if start[:1] == b"(":
        start = start[1:]
    return start[:2] == b"K\0" or start[:1] in (b"C", b"B")
