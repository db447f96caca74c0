"""What one session refers to in its daemon: one proxy for each object, and the count of it.

A proxy that is collected leaves its reference to be released. That is done by the janitor's thread
(`background.py`) or in front of the next request, never where the proxy goes: that may be in the
middle of any line.
"""

from __future__ import annotations

import pickle
import threading
import weakref
from collections import deque
from contextlib import suppress

from ..errors import StaleReference
from ..kernel import wire
from . import background
from .proxy import GONE, ObjectProxy, Reference, is_lasting, make_proxy
from .remote_type import RemoteType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from .channel import Channel
    from .line import Line
    from .session import Session

    Run: TypeAlias = tuple[str, int]  # of a daemon: its token and pid

# A frame of so many is small enough for the system to take it whole or not at all.
RELEASES_A_FRAME = 1000

# Before a thread uses more objects than this in one-way calls, these must have been made.
USED_LIMIT = 1000


class ProxyRef(weakref.ref[ObjectProxy]):
    """The session's entry for a proxy that is alive; it outlives the proxy to release it."""

    __slots__ = ("reference",)
    reference: Reference


class References:
    """The proxies of a session that are alive, and what is to be released of those that are not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._types: dict[int, RemoteType] = {}
        # By oid. A name may be several proxies': it was looked up in one daemon and in the next.
        self.alive: dict[int | tuple[bytes, int], ProxyRef] = {}
        self._lock = threading.Lock()
        self.released: deque[tuple[int, int]] = deque()  # (oid, count)
        self._used: dict[int, set[int]] = {}  # thread -> oids in its one-way calls
        self._withheld: list[tuple[int, int]] = []  # what is to be released after those

    def proxy(
        self,
        oid: int,
        type_id: int,
        shadowed: tuple[str, ...],
        description: dict[str, Any] | None,
    ) -> ObjectProxy:
        """The one proxy of this object here, counting this reference to it."""
        remote_type = self._types.get(type_id)
        if remote_type is None:
            if description is None:
                description = self._session.request(wire.DESCRIBE, (oid,))
            remote_type = self.learn(type_id, description)
        with self._lock:
            known = self.alive.get(oid)
            proxy = None if known is None else known()
            if known is not None and proxy is not None:
                known.reference.count += 1
                known.reference.shadowed = shadowed
                return proxy
            reference = Reference(self._session, oid, remote_type, shadowed)
            proxy = make_proxy(reference)
            self._remember(proxy, reference)
            return proxy

    def decline(
        self,
        oid: int,
        type_id: int,
        shadowed: tuple[str, ...],
        description: dict[str, Any] | None,
    ) -> None:
        """Give this reference back, with no proxy made of it."""
        if description is not None:
            self.learn(type_id, description)  # which is sent but once
        if oid != wire.ROOT:
            with self._lock:
                self._release(oid, 1)

    def learn(self, type_id: int, description: Any) -> RemoteType:
        """Know this type from its description, which is sent once."""
        remote_type = self._types[type_id] = RemoteType(description)
        return remote_type

    def _remember(self, proxy: ObjectProxy, reference: Reference) -> None:
        entry = ProxyRef(proxy, background.collected.put)
        entry.reference = reference
        self.alive[_key(entry)] = entry

    def collected(self, entry: ProxyRef) -> None:
        """On the janitor's thread: the proxy of this entry is gone."""
        reference = entry.reference
        with self._lock:
            key = _key(entry)
            if self.alive.get(key) is entry:
                del self.alive[key]
            if isinstance(reference.oid, int) and reference.oid != wire.ROOT:
                self._release(reference.oid, reference.count)

    def _release(self, oid: int, count: int) -> None:
        is_used = any(oid in used for used in self._used.values())
        (self._withheld if is_used else self.released).append((oid, count))

    def use(self, oids: set[int]) -> bool:
        """This thread makes a one-way call with these objects: none of them may be released before,
        which might come first on another connection. False where too many are used already."""
        with self._lock:
            used = self._used.setdefault(threading.get_ident(), set())
            if used and len(used | oids) > USED_LIMIT:
                return False
            used |= oids
            return True

    def used(self) -> None:
        """A later request was answered: this thread's one-way calls have been made."""
        with self._lock:
            if self._used.pop(threading.get_ident(), None) is not None:
                withheld, self._withheld = self._withheld, []
                for oid, count in withheld:
                    self._release(oid, count)

    def release_frame(self) -> bytes:
        """The frame that releases what is to be released, or the first part of it."""
        released: list[tuple[int, int]] = []
        with suppress(IndexError):  # empty, or another thread was quicker
            while len(released) < RELEASES_A_FRAME:
                released.append(self.released.popleft())
        frame: bytes = wire.frame(wire.RELEASE, pickle.dumps(released, 2))
        return frame

    def put_back(self, frame: bytes) -> None:
        """What this frame would have released is still to be."""
        self.released.extend(pickle.loads(frame[wire.HEADER_BYTES :]))

    def bury(self, epitaph: Epitaph) -> None:
        """The daemon is gone, and all that was in it; only its root may come back, and what that
        has by name."""
        self._types.clear()
        self.released.clear()
        with self._lock:
            self._used.clear()
            self._withheld.clear()
            for key, entry in list(self.alive.items()):
                reference = entry.reference
                if is_lasting(reference.oid):
                    continue
                if reference.name:
                    reference.oid = reference.name
                    self.alive[_key(entry)] = entry  # first: at no moment is it not there
                else:
                    reference.session, reference.oid = epitaph, GONE
                del self.alive[key]

    def forked(self) -> None:
        """In a forked child: with a janitor of its own, and nothing to release of the parent's."""
        self._lock = threading.Lock()
        self.released.clear()
        self._used.clear()
        self._withheld.clear()
        entries = list(self.alive.values())
        self.alive.clear()
        for entry in entries:
            proxy = entry()
            if proxy is not None:
                self._remember(proxy, entry.reference)


def _key(entry: ProxyRef) -> int | tuple[bytes, int]:
    oid = entry.reference.oid
    # By id: a weak reference hashes as what it refers to, which takes a request.
    return (oid, id(entry)) if isinstance(oid, bytes) else oid


class Epitaph:
    """What the references of a daemon that is gone have for a session."""

    line: Line | None = None
    has_callbacks = False

    def __init__(self, name: str, started: dict[str, Any], reason: str) -> None:
        self.name = name
        self.started = started
        self.run = run_of(started)
        self.gone = reason
        self.generation = -2  # nothing that was known of its objects holds any more
        self.nested: dict[int, Channel] = {}

    def request(
        self,
        kind: int,
        request: tuple[Any, ...],
        flags: int = 0,
        reference: Reference | None = None,
    ) -> Any:
        raise StaleReference(f"daemon {self.name!r}, where this object lived, {self.gone}")

    def send_oneway(
        self, kind: int, request: tuple[Any, ...], reference: Reference | None = None
    ) -> None:
        self.request(kind, request)

    def come_back(self, request: tuple[Any, ...]) -> None:
        self.request(wire.CALL, request)

    def release(self, entry: ProxyRef) -> None:
        """There is nothing to release any more."""

    def tidy(self) -> bool:
        """Nor anything to leave."""
        return False


def run_of(started: dict[str, Any]) -> Run:
    """What tells this run of a daemon from those before and after a restart."""
    return started["token"], started["pid"]
