"""The call channel's frames, however the stream is cut."""

import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawny.kernel import wire

frames = st.tuples(
    st.integers(0, 255), st.integers(0, 255), st.one_of(st.just(b""), st.binary(max_size=300))
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places, which wrap around its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_frames_survive_any_cut(
    sent: list[tuple[int, int, bytes]], cuts: list[int], into: bool
) -> None:
    """Fed as received, or received into the buffer that is offered for a large body."""
    data = b"".join(wire.frame(kind, body, flags) for kind, flags, body in sent)
    reader = wire.FrameReader()
    got: list[tuple[int, int, bytes]] = []
    for piece in pieces(data, cuts):
        while into and piece and (view := reader.wanted()) is not None:
            count = min(len(view), len(piece))
            view[:count] = piece[:count]
            got += reader.filled(count)
            piece = piece[count:]
        got += reader.feed(piece)
    assert [(kind, flags, bytes(body)) for kind, flags, body in got] == sent
    assert not reader.in_frame
    assert reader.wanted() is None


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=5))
def test_garbage_raises_nothing_else(data: bytes, cuts: list[int]) -> None:
    """A WireError, and never anything else."""
    reader = wire.FrameReader()
    try:
        for piece in pieces(data, cuts):
            reader.feed(piece)
    except wire.WireError:
        pass


def test_in_frame_tells_a_cut_end() -> None:
    """An end of the stream between frames is an end; within one it is an accident."""
    reader = wire.FrameReader()
    whole = wire.frame(wire.CALL, b"body")
    for end in range(1, len(whole)):
        reader = wire.FrameReader()
        assert reader.feed(whole[:end]) == []
        assert reader.in_frame


@pytest.fixture
def little_memory() -> Iterator[None]:
    """There is room for 64 MiB more in this process."""
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("into", [False, True])
def test_a_body_for_which_there_is_no_memory(little_memory: None, into: bool) -> None:
    """It is read and thrown away; what comes after it is not."""
    reader = wire.FrameReader()
    left = 256 << 20
    piece = b"x" * (1 << 20)
    assert reader.feed(wire.HEADER.pack(left, wire.CALL, wire.KEEP, 0) + piece) == []
    left -= len(piece)
    while left > len(piece):
        if into:
            count = len(reader.wanted())
            assert reader.filled(count) == []
        else:
            count = len(piece)
            assert reader.feed(piece) == []
        left -= count
    frames = reader.feed(b"x" * left + wire.frame(wire.CALL, b"next"))
    assert frames == [(wire.CALL, wire.KEEP | wire.LOST, b""), (wire.CALL, 0, b"next")]


def test_memory_that_runs_out_in_the_middle_of_a_body(little_memory: None) -> None:
    """What has come is thrown away, and the rest; what comes after it is not."""
    reader = wire.FrameReader()
    step = 16 << 20
    left = 10 * step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "AT_ONCE_BYTES", step)
        reader.feed(wire.HEADER.pack(left, wire.CALL, wire.KEEP, 0))
        while left:
            count = min(left, len(reader.wanted()))
            frames = reader.filled(count)
            left -= count
    assert frames == [(wire.CALL, wire.KEEP | wire.LOST, b"")]
    assert reader.feed(wire.frame(wire.CALL, b"next")) == [(wire.CALL, 0, b"next")]


@given(st.binary(min_size=20, max_size=300), st.integers(1, 10), st.lists(st.integers(1, 50)))
def test_a_body_that_gets_its_room_as_it_comes(body: bytes, at_once: int, sizes: list[int]) -> None:
    """It arrives whole, in whatever pieces, received or fed."""
    data = wire.frame(wire.CALL, body, wire.KEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "AT_ONCE_BYTES", at_once)
        reader = wire.FrameReader()
        assert reader.feed(data[:13]) == []
        rest, frames = data[13:], []
        for size in [*sizes, *[len(data)] * 20]:
            view = reader.wanted()
            if view is None:
                break
            size = min(size, len(view)) if size % 2 else size
            if size <= len(view) and size % 2:
                view[:size] = rest[:size]
                del view
                frames += reader.filled(size)
            else:
                del view
                frames += reader.feed(rest[:size])
            rest = rest[size:]
    assert [(kind, flags, bytes(got)) for kind, flags, got in frames] == [
        (wire.CALL, wire.KEEP, body)
    ]


def test_a_length_alone_fills_no_memory() -> None:
    """Room is made for what has come, whatever length is told."""
    reader = wire.FrameReader()
    reader.feed(wire.HEADER.pack(wire.BODY_LIMIT_BYTES, wire.CALL, 0, 0) + b"x")
    assert len(reader.wanted()) < wire.AT_ONCE_BYTES


def test_a_length_beyond_reason_is_garbage() -> None:
    """It is refused before anything is reserved for it."""
    with pytest.raises(wire.WireError):
        wire.FrameReader().feed(wire.HEADER.pack(wire.BODY_LIMIT_BYTES + 1, wire.CALL, 0, 0))
    with pytest.raises(wire.WireError):
        wire.FrameReader().feed(wire.HEADER.pack(0, wire.CALL, 0, 1))
