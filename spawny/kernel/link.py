"""The link's codec: what a daemon and its supervisor tell each other.

A frame is 8 bytes (`!II`: length of the header, length of the blob), then the header, a JSON object
with a "type", then the blob, opaque bytes that only "load" carries. JSON, since the supervisor must
never unpickle what a daemon sends. Both ends use this one file; what the messages mean is written
in docs/protocol-link.md.
"""

import json
import struct

PROTOCOL = 1

_LENGTHS = struct.Struct("!II")

HEADER_LIMIT_BYTES = 1024 * 1024  # the longest are thread stacks and tracebacks, cut by the sender
BLOB_LIMIT_BYTES = 1024 * 1024 * 1024  # a definition


class LinkError(ValueError):
    """The bytes are no frame of this protocol; the connection is of no more use."""


def encode(header, blob=b""):
    """The bytes of one frame; `header` is a dict with a "type"."""
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    return _LENGTHS.pack(len(head), len(blob)) + head + blob


class Decoder:
    """Turns the bytes of one connection, however they are cut, into (header, blob) pairs."""

    def __init__(self, blob_limit=BLOB_LIMIT_BYTES):
        self._buffer = bytearray()
        self._blob_limit = blob_limit

    def feed(self, data):
        """Every frame that `data` completes, in order; raises `LinkError` on anything malformed."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= _LENGTHS.size:
            head_size, blob_size = _LENGTHS.unpack_from(self._buffer)
            if head_size > HEADER_LIMIT_BYTES or blob_size > self._blob_limit:
                raise LinkError("%d + %d bytes are over the limit" % (head_size, blob_size))
            end = _LENGTHS.size + head_size + blob_size
            if len(self._buffer) < end:
                break
            head = bytes(self._buffer[_LENGTHS.size : _LENGTHS.size + head_size])
            blob = bytes(self._buffer[_LENGTHS.size + head_size : end])
            del self._buffer[:end]
            frames.append((_parse(head), blob))
        return frames


def _parse(head):
    try:
        header = json.loads(head.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise LinkError("a header is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise LinkError("a header is not an object with a type")
    return header
