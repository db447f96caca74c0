"""Wrong input that is led by what code it reaches, where atheris is installed (`pip install
atheris`); the rest of the command is libFuzzer's:

    python -m tests.fuzz.guided control -runs=1000000

The targets are the codecs: control, link, wire.
"""

import sys

import atheris

with atheris.instrument_imports(include=["spawny"]):
    from spawny import control as messages
    from spawny.errors import VersionMismatch
    from spawny.kernel import link as link_codec
    from spawny.kernel import wire as frames
    from spawny.supervisor import links

_SEPARATOR = b"\xff\x00"


def control(data: bytes) -> None:
    """A request's frames, cut at a separator; what is understood is said again the same."""
    try:
        message = messages.decode(data.split(_SEPARATOR)).message
    except (messages.MalformedMessage, VersionMismatch):
        return
    assert messages.decode(messages.encode(message)).message == message


def link(data: bytes) -> None:
    """The bytes of a link."""
    try:
        for header, _blob in link_codec.Decoder(0).feed(data):
            links._parse(1, header)
    except ValueError:  # LinkError, or a path that cannot be one
        pass


def wire(data: bytes) -> None:
    """The bytes of a call connection, in two pieces, the second into room that was offered."""
    reader = frames.FrameReader()
    middle = len(data) // 2
    try:
        reader.feed(data[:middle])
        rest = data[middle:]
        while rest and (room := reader.wanted()) is not None:
            count = min(len(rest), len(room))
            room[:count] = rest[:count]
            room.release()
            reader.filled(count)
            rest = rest[count:]
        reader.feed(rest)
    except frames.WireError:
        pass


if __name__ == "__main__":
    chosen = {each.__name__: each for each in (control, link, wire)}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, chosen)
    atheris.Fuzz()
