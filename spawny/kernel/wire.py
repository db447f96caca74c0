"""The call channel's frames, the same file on both ends.

A frame is a 12-byte header (`<QBBH`: length of the body, kind, flags, zero) and a body. The first
frame of a connection says what it is for: HELLO makes it a call connection or an event connection
of a session; INTERRUPT, TERMINATE and POKE are errands, answered (POKE is not) and closed.

After HELLO a call connection carries requests one after the other, each answered by exactly one
VALUE, REFERENCE or ERROR, in order; OUTPUT frames may come before an answer. A request body that
cannot be unpickled costs that request: the frame's length keeps the stream in step. What each body
holds is written beside its kind.
"""

import struct

# Bodies and meanings changed incompatibly: count up. HELLO and STARTED keep their first field.
PROTOCOL = 3

HEADER = struct.Struct("<QBBH")
HEADER_BYTES = HEADER.size

# How the bodies of CALLBACK, RETURN and RAISE begin: with the number of the callback. The pickle
# that follows is opened by a thread that may run user code.
NUMBER = struct.Struct("<Q")

# What is thrown away is read into so much.
SCRATCH_BYTES = 64 * 1024

# A length above this is a sign of garbage, not of a large array: those go by shared memory.
BODY_LIMIT_BYTES = 1 << 38

# A larger body gets its room as it comes, each time as much again as is there: a length alone, be
# it garbage, fills no memory. (Growing is cheap: the system moves the pages of what is so large.)
AT_ONCE_BYTES = 1024 * 1024

# --- client to daemon; bodies are pickles ---
HELLO = 1  # (protocol, session id, role, client pid, pickle protocol, session to inherit or None,
#             can it borrow segments?)
CALL = 2  # (oid, args, kwargs)
METHOD = 3  # (oid, name, args, kwargs)
GETATTR = 4  # (oid, name)
SETATTR = 5  # (oid, name, value)
DELATTR = 6  # (oid, name)
OPERATE = 7  # (oid, name of the special method, args)
NEXT = 8  # (oid, most items, seconds, items received, is it hidden?) -> a chunk, see streams.py
GETVALUE = 9  # (oid,)
DESCRIBE = 10  # (oid,) -> the description of its type
HELD = 11  # (request number,) its value could not be loaded: send its elements, or a reference
RELEASE = 12  # [(oid, count), ...]; no answer
INSPECT = 13  # (oid, name or None) -> what is to be known of it or that attribute, inspection.py
AWAIT = 14  # as METHOD; what is awaitable runs on -> a reference to its task, see tasks.py
RETURN = 15  # number, value: answers a CALLBACK, is not answered itself
RAISE = 16  # number, failure: the same for a callback that raised
PUTBACK = 17  # (oid, items used): what NEXT gave beyond these is to be given again
PROGRAM = 18  # (kind, text, argv, folder, directory, encoding) -> exit code, see programs.py
INTERRUPT = 20  # (connection id, request number); errand
TERMINATE = 21  # (reason,); errand
POKE = 22  # empty; errand: link up again, a supervisor has come
PASS = 23  # (session id, number of a segment, its size), and its descriptor; errand
FETCH = 24  # (session id, number of a segment); errand, answered with (size,) and its descriptor
STREAMS = 25  # (session id,), and the client's descriptors 0 to 2; errand, answered with True
BUSY = 26  # empty; errand: does a request run, or the definition?

# --- daemon to client ---
STARTED = 32  # first answer to HELLO: a dict, see server.py
READY = 33  # second answer to HELLO: (root reference, connection id)
VALUE = 34  # the pickled value
REFERENCE = 35  # (oid, type id, shadowed names, description of the type or None)
ERROR = 36  # a failure, see failures.py
OUTPUT = 37  # text in UTF-8; the flags are the stream, 1 or 2
ENDING = 38  # the reason in UTF-8; only on event connections
ACK = 39  # pickled answer to an errand
CALLBACK = 40  # number, (values, (callback id, names of the last ones)): call that function
DONE = 41  # (oid of a task,): what AWAIT began is over; only on event connections
DROPPED = 42  # [(callback id, count), ...]: references to callbacks given back; as DONE

# --- both ways, on any connection of a session; no answer ---
SEGMENTS = 43  # ([(number, times)] given back, numbers to be forgotten, numbers forgotten)

# --- flags of a request ---
KEEP = 1  # the result stays there: answer with a reference
NESTED = 4  # made by a callback, while the connection's request before waits for it
ONEWAY = 8  # no answer
PIPELINED = 16  # more requests follow before this one's answer is read
FOLLOWED = 64  # the same, but these do not end with it if it is interrupted

# --- flags of a pickled body ---
WITH_REFERENCES = 2  # it holds persistent ids, see `ArgumentUnpickler` and `ResultUnpickler`
WITH_BUFFERS = 32  # it is a pickle with buffers beside it, see buffers.py

# --- flag that the reader of a frame sets ---
LOST = 128  # there was no memory for its body, which was thrown away

# --- flags of a VALUE ---
IS_HELD = 1  # it names classes that the client may lack: HELD is possible until the next request

# --- flags of an ERROR, of spawny's own, and COMES_BACK of an ENDING, too ---
NOT_RUN = 1  # the daemon ends, and has not begun this request
COMES_BACK = 2  # it will be started anew

# --- flags of a RETURN ---
UNLOADED = 1  # the arguments could not be loaded: call back again, each element by itself

ROLE_CALLS = "calls"
ROLE_EVENTS = "events"

ROOT = 0  # the oid of the daemon's root object, never released


class WireError(ValueError):
    """The bytes are no frames of this protocol; the connection is of no more use."""


def frame(kind, body=b"", flags=0):
    """The bytes of one frame."""
    return HEADER.pack(len(body), kind, flags, 0) + body


class FrameReader:
    """Cuts the bytes of one connection into frames, without copying a body that came in one piece.

    `feed` takes what a recv returned and gives every complete frame as (kind, flags, body). A large
    body is collected in one buffer: `wanted()` then offers room in that buffer, so that the caller
    can recv into it. What it offered before must be let go of by then.
    """

    __slots__ = ("_head", "_body", "_filled", "_kind", "_flags", "_length", "_is_lost")

    def __init__(self):
        self._head = b""
        self._body = None

    @property
    def in_frame(self):
        """True between frames' bytes: an end of stream here cuts a frame short."""
        return bool(self._head) or self._body is not None

    def wanted(self):
        """Room for what is to come of the pending body, as a memoryview; None without one."""
        if self._body is None:
            return None
        if not self._is_lost and self._filled == len(self._body):
            self._make_room(min(self._filled, self._length - self._filled))
        if self._is_lost:
            return memoryview(self._body)[: self._length - self._filled]
        return memoryview(self._body)[self._filled :]

    def filled(self, count):
        """`count` bytes were received into `wanted()`; gives the frames complete now."""
        self._filled += count
        if self._filled < self._length:
            return []
        body, self._body = self._body, None
        if self._is_lost:
            return [(self._kind, self._flags | LOST, b"")]
        return [(self._kind, self._flags, body)]

    def _expect(self, length, kind, flags):
        """The body of this frame is still to come, or most of it."""
        self._kind, self._flags, self._length = kind, flags, length
        self._filled, self._is_lost = 0, False
        self._body = bytearray()
        self._make_room(min(length, AT_ONCE_BYTES))

    def _make_room(self, size):
        """Room for so many bytes more, where there is memory for them."""
        try:
            if self._body:
                self._body += bytes(size)
            else:
                self._body = bytearray(size)
        except MemoryError:
            # One that is too large must not cost the connection: read it, and throw it away.
            self._body = bytearray(SCRATCH_BYTES)
            self._is_lost = True

    def _fill(self, data):
        missing = self._filled + len(data) - len(self._body)
        if missing > 0 and not self._is_lost:
            self._make_room(missing)
        if not self._is_lost:
            self._body[self._filled : self._filled + len(data)] = data
        return self.filled(len(data))

    def feed(self, data):
        """The frames that `data` completes; raises `WireError` on garbage."""
        if self._body is None and not self._head and len(data) >= HEADER_BYTES:
            # The usual case, and the hot path: one whole frame.
            length, kind, flags, zero = HEADER.unpack_from(data)
            if len(data) == HEADER_BYTES + length and not zero:
                return [(kind, flags, data[HEADER_BYTES:])]
        frames = []
        if self._body is not None:
            room = self._length - self._filled
            frames += self._fill(data[:room])
            data = data[room:]
        if self._head:
            data = self._head + data
            self._head = b""
        start, size = 0, len(data)
        unpack = HEADER.unpack_from
        while size - start >= HEADER_BYTES:
            length, kind, flags, zero = unpack(data, start)
            if length > BODY_LIMIT_BYTES or zero:
                raise WireError("garbage where a frame should begin")
            start += HEADER_BYTES
            end = start + length
            if end > size:
                self._expect(length, kind, flags)
                self._fill(data[start:])
                return frames
            frames.append((kind, flags, data[start:end]))
            start = end
        self._head = bytes(data[start:])
        return frames
