"""Pickling what a client sends: the C pickler first, the careful way only for what needs it.

Three things in a request cannot travel as a plain pickle: proxies, which become the real objects in
their own daemon; classes and functions of `__main__`, which no daemon can import; and whatever
pickle refuses, such as a lambda. The latter two go by cloudpickle, where the daemon can execute
our byte code at all (same implementation, same major.minor): byte code of another version loads
there, may run, and then crashes the interpreter. To all others they go by source, see `code.py`.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
from types import CodeType

from ..errors import SerializationError
from ..kernel import buffers, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .code import SourcePickler
    from .session import Session

# All are plain in a pickle that holds them, and cheap to look for. As data they do no harm: the
# careful way gives the same result.
_NAMED = b"\x93"  # STACK_GLOBAL: no class or function is named without it
_MAIN = b"__main__"
PROXY_MARK = b"attach_again"
# In what pickles code objects although pickle does not: as cloudpickle does, within another pickle.
_CODE_MARKS = (b"CodeType", b"marshal")


class Unsendable(SerializationError):
    """What was to be sent cannot travel, or cannot be loaded there: nothing was executed.

    Only this may be answered by another try; a SerializationError that user code raises may not.
    """


def interpreter_tag() -> str:
    """The implementation and version between which code may travel, such as `cpython3.11`."""
    return _TAG


_TAG = f"{sys.implementation.name}{sys.version_info[0]}.{sys.version_info[1]}"


def dumps(
    request: Any, session: Session, oids: set[int] | None = None
) -> tuple[bytes | buffers.Parts, int]:
    """(body, flags) of a request; raises `SerializationError` naming what cannot travel.

    The numbers of the objects in it are added to `oids`.
    """
    try:
        body, large = buffers.dumps(request, session.pickle_protocol)
    except Exception:  # noqa: BLE001 (whatever it is, the careful way knows more of it)
        pass
    else:
        if _NAMED not in body or (
            _MAIN not in body
            and PROXY_MARK not in body
            and (session.interpreter_tag == _TAG or not _may_hold_code(body))
        ):
            if large:
                return _pack(body, large, session), wire.WITH_BUFFERS
            return body, 0
    body, large = _dumps_carefully(request, session, oids)
    if large:
        return _pack(body, large, session), wire.WITH_REFERENCES | wire.WITH_BUFFERS
    return body, wire.WITH_REFERENCES


def _may_hold_code(body: bytes) -> bool:
    # Whoever has told pickle how to pickle code objects may do so under any name.
    return CodeType in copyreg.dispatch_table or any(mark in body for mark in _CODE_MARKS)


def _pack(pickled: bytes, large: list[Any], session: Session) -> buffers.Parts:
    try:
        lending = session.lending
    except OSError:  # out of descriptors, it cannot even be imported
        inline: buffers.Parts = buffers.pack(pickled, large, None, None)
        return inline
    packed: buffers.Parts = lending.pack(pickled, large)
    return packed


def _dumps_carefully(
    request: Any, session: Session, oids: set[int] | None
) -> tuple[bytes, list[Any]]:
    is_of_our_version = session.interpreter_tag == _TAG

    def is_enough(body: bytes) -> bool:
        return _MAIN not in body and (is_of_our_version or not _may_hold_code(body))

    try:
        # What the C pickler refused may have been a proxy or a callback and nothing else.
        found = _dump(_ByName, request, session, oids, is_enough)
    except Unsendable:
        raise
    except Exception:  # noqa: BLE001 (cloudpickle may do better, or says what is wrong)
        pass
    else:
        if found is not None:
            return found
    kind = _by_value_class() if is_of_our_version else _by_source_class()
    try:
        found = _dump(kind, request, session, oids)
    except Unsendable:
        raise
    except Exception as error:
        where = f"daemon {session.name!r}"
        if not is_of_our_version:
            where += (
                f", which runs {session.interpreter_tag} and cannot execute byte code of {_TAG}"
            )
        raise Unsendable(f"an argument cannot travel to {where}: {_reason(error)}") from error
    assert found is not None
    return found


def _dump(
    kind: type[pickle.Pickler],
    request: Any,
    session: Session,
    oids: set[int] | None,
    is_enough: Callable[[bytes], bool] | None = None,
) -> tuple[bytes, list[Any]] | None:
    """The pickle and its buffers; None where it is not enough."""
    file = io.BytesIO()
    collector = buffers.Collector(session.pickle_protocol)
    pickler = collector.pickler(kind, file)
    pickler.session = session
    sent: list[tuple[int, int]] = []
    pickler.sent = sent
    pickler.oids = set() if oids is None else oids
    body = None
    try:
        pickler.dump(request)
        if is_enough is None or is_enough(file.getvalue()):
            body = file.getvalue()
    finally:
        if body is None and sent:
            session.callbacks.dropped(sent)
    return None if body is None else (body, collector.buffers)


def _persistent_id(pickler: Any, obj: Any) -> Any:
    """What a proxy or a callback is pickled as: see `ArgumentUnpickler` in the kernel."""
    kind = type(obj)
    if kind in _SURELY_PLAIN:
        return None
    from .callbacks import Callback
    from .proxy import MethodProxy, ObjectProxy, bound_method, reference_of

    session = pickler.session
    if kind is Callback:
        known = session.callbacks.send(obj)
        pickler.sent.append((known[0], 1))
        return known
    if not issubclass(kind, ObjectProxy):
        return None
    reference = reference_of(bound_method(obj) if kind is MethodProxy else obj)
    if reference.stream is not None:
        reference.stream.put_back()  # whoever gets it there wants all that is to come
    if reference.session is not session:
        raise Unsendable(
            f"a proxy of daemon {reference.session.name!r} cannot be passed to daemon"
            f" {session.name!r}: pass spawny.value(...) of it, or spawny.callback(...) of its"
            " method, which is then called through this process"
        )
    pickler.oids.add(reference.oid)
    return reference.oid


_SURELY_PLAIN = frozenset([type(None), bool, int, float, str, bytes, list, tuple, dict])


class _ByName(pickle.Pickler):
    persistent_id = _persistent_id


_by_value: type[pickle.Pickler] | None = None
_by_source: type[SourcePickler] | None = None


def _by_value_class() -> type[pickle.Pickler]:
    global _by_value
    if _by_value is None:
        import cloudpickle  # 35 ms, so only here

        from .code import far_name

        class ByValue(cloudpickle.CloudPickler):  # type: ignore[misc]  # an untyped package
            def persistent_id(self, obj: Any) -> Any:
                return far_name(obj) or self.elsewhere(obj)

            def elsewhere(self, obj: Any) -> Any:
                return _persistent_id(self, obj)

        _by_value = ByValue
    return _by_value


def _by_source_class() -> type[SourcePickler]:
    global _by_source
    if _by_source is None:
        from .code import SourcePickler

        class BySource(SourcePickler):
            def elsewhere(self, obj: Any) -> Any:
                return _persistent_id(self, obj)

        _by_source = BySource
    return _by_source


def _reason(error: BaseException) -> str:
    """Why pickling failed, in a line."""
    return getattr(error, "culprit", "") + _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


class ResultUnpickler(buffers.Unpickler):
    """Loads a result some elements of which stay in their daemon.

    These come first, in a pickle of their own: so each has its proxy, which gives it back to the
    daemon when it goes, before anything can fail.
    """

    def __init__(
        self, body: bytes | memoryview, session: Session, large: Sequence[Any] = ()
    ) -> None:
        file = io.BytesIO(body)
        self._elements: list[Any] = []
        missing: set[tuple[str, str]] = set()
        used = 0
        for pickled, count, reference in pickle.load(file):
            element = _element(pickled, large[used : used + count], missing)
            if element is _UNLOADED:
                element = session.proxy(*reference)
            else:
                session.decline(*reference)
            self._elements.append(element)
            used += count
        super().__init__(file.read(), large[used:])  # type: ignore[no-untyped-call]

    def persistent_load(self, place: Any) -> Any:
        return self._elements[place]


_UNLOADED = object()


def _element(pickled: bytes | None, large: Sequence[Any], missing: set[tuple[str, str]]) -> Any:
    if pickled is None:
        return _UNLOADED
    try:
        return _ElementUnpickler(pickled, large, missing).load()
    except Exception:  # noqa: BLE001 (loading runs the classes' own code)
        return _UNLOADED


class _ElementUnpickler(buffers.Unpickler):
    """One of many: what one could not import, the others need not look for."""

    def __init__(self, pickled: bytes, large: Sequence[Any], missing: set[tuple[str, str]]) -> None:
        super().__init__(pickled, large)  # type: ignore[no-untyped-call]
        self._missing = missing

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._missing:
            raise pickle.UnpicklingError(f"{module}.{name} was not found before")
        try:
            return super().find_class(module, name)  # type: ignore[no-untyped-call]
        except Exception:
            self._missing.add((module, name))
            raise


def dumps_object(obj: Any) -> tuple[bytes, str | None, bytes | None, str]:
    """(pickle, tag, pickle by source, why there is none of that) of an object to run as a daemon.

    The tag names the interpreters that can open the first pickle, None where any can.
    """
    from ..definitions import PAYLOAD_PROTOCOL

    try:
        body = pickle.dumps(obj, PAYLOAD_PROTOCOL)
    except Exception:  # noqa: BLE001 (cloudpickle may do better, or says what is wrong)
        body = _MAIN
    if _MAIN not in body and not _may_hold_code(body):
        return body, None, None, ""

    class Definition(_by_value_class()):  # type: ignore[misc]
        def elsewhere(self, obj: Any) -> Any:
            return None

    buffer = io.BytesIO()
    try:
        Definition(buffer, PAYLOAD_PROTOCOL).dump(obj)
    except Exception as error:
        raise SerializationError(
            f"{type(obj).__name__} object cannot travel to a daemon: {_first_line(error)}"
        ) from error
    from .code import SourcePickler

    by_source = io.BytesIO()
    try:
        SourcePickler(by_source, PAYLOAD_PROTOCOL).dump(obj)
    except Exception as error:  # noqa: BLE001 (told where it matters, if it does)
        return buffer.getvalue(), _TAG, None, _reason(error)
    return buffer.getvalue(), _TAG, by_source.getvalue(), ""
