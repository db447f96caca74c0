"""The link's codec, as both ends use it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawny.kernel import link

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
headers = st.builds(
    lambda kind, more: {**more, "type": kind},
    st.text(max_size=10),
    st.dictionaries(st.text(max_size=10), json_values, max_size=4),
)
frames = st.lists(st.tuples(headers, st.binary(max_size=100)), max_size=5)


@given(frames, st.data())
def test_frames_arrive_however_they_are_cut(sent, data) -> None:
    """The stream may be cut anywhere, and holds the same frames in the same order."""
    stream = b"".join(link.encode(header, blob) for header, blob in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=10).map(sorted))
    decoder = link.Decoder()
    received = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[begin:end])
    assert received == sent


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_is_a_link_error_or_nothing_yet(pieces) -> None:
    """No bytes raise anything but `LinkError`."""
    decoder = link.Decoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
    except link.LinkError:
        pass


@given(st.binary(max_size=60))
def test_a_header_that_is_none_is_refused(head) -> None:
    """A whole frame is a JSON object with a type, or an error."""
    frame = struct.pack("!II", len(head), 0) + head
    try:
        ((header, blob),) = link.Decoder().feed(frame)
    except link.LinkError:
        return
    assert isinstance(header["type"], str)
    assert blob == b""


@pytest.mark.parametrize("head", [b"[]", b"{}", b'{"type": 1}', b"[" * 100_000, b"\xff"])
def test_what_no_header_is(head: bytes) -> None:
    """Not an object, without a type, nested without end, not UTF-8."""
    with pytest.raises(link.LinkError):
        link.Decoder().feed(struct.pack("!II", len(head), 0) + head)


@pytest.mark.parametrize(
    ("head_size", "blob_size"), [(link.HEADER_LIMIT_BYTES + 1, 0), (2, link.BLOB_LIMIT_BYTES + 1)]
)
def test_a_frame_over_a_limit_is_refused_before_it_comes(head_size: int, blob_size: int) -> None:
    """Its length is enough: nothing is collected."""
    with pytest.raises(link.LinkError, match="over the limit"):
        link.Decoder().feed(struct.pack("!II", head_size, blob_size))


def test_a_blob_can_be_forbidden() -> None:
    """The supervisor sends blobs and never receives one."""
    with pytest.raises(link.LinkError, match="over the limit"):
        link.Decoder(blob_limit=0).feed(link.encode({"type": "hello"}, b"x"))
