"""The control plane's codec."""

import json
from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawny import control, errors

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

MESSAGES = [
    kind
    for kind in vars(control).values()
    if isinstance(kind, type) and issubclass(kind, control.Message) and kind is not control.Message
]

st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

messages = st.one_of([st.builds(kind) for kind in MESSAGES])
envelopes = st.tuples(messages, st.integers(0, 2**53))


def refuse(frames: list[bytes]) -> control.MalformedMessage:
    with pytest.raises(control.MalformedMessage) as caught:
        control.decode(frames)
    return caught.value


def header(message: control.Message, **changes: Any) -> bytes:
    """The header of a message, with changes; `body` is merged."""
    content = json.loads(control.encode(message, 5)[0])
    content["body"].update(changes.pop("body", {}))
    return json.dumps(content | changes).encode()


@given(envelopes)
def test_every_message_arrives_as_it_was_sent(sent: tuple[control.Message, int]) -> None:
    """Encoding and decoding are inverse, for every field of every message."""
    message, request_id = sent
    assert control.decode(control.encode(message, request_id)) == control.Envelope(
        request_id, message
    )


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_garbage_is_refused(frames: list[bytes]) -> None:
    """Bytes that are no message are `MalformedMessage` and nothing else."""
    refuse(frames)
    assert control.peek_request_id(frames) == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(messages, st.data())
def test_a_message_with_a_wrong_field_is_refused(message: control.Message, data: Any) -> None:
    """Any JSON in any field: the message is decoded as declared, or refused."""
    head, *binary = control.encode(message)
    content = json.loads(head)
    place = data.draw(st.sampled_from([content, content["body"]]))
    if place:
        place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    try:
        decoded = control.decode([json.dumps(content).encode(), *binary])
    except (control.MalformedMessage, errors.VersionMismatch):
        return
    assert control.decode(control.encode(decoded.message, decoded.request_id)) == decoded


@given(json_values)
def test_any_json_is_refused_or_a_message(value: Any) -> None:
    """A header that is JSON but not ours never raises anything else."""
    frames = [json.dumps(value).encode()]
    refuse(frames)
    control.peek_request_id(frames)


def test_a_header_of_deep_nesting_is_refused() -> None:
    """JSON that exhausts the parser's stack is only malformed."""
    assert "not JSON" in str(refuse([b"[" * 100_000]))


def test_a_header_over_the_limit_is_refused_unread() -> None:
    """Eight megabytes hold anything that is meant."""
    assert "over" in str(refuse([b" " * (control.HEADER_LIMIT_BYTES + 1)]))


def test_a_frame_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition is not a way to fill the memory."""
    monkeypatch.setattr(control, "FRAME_LIMIT_BYTES", 3)
    frames = control.encode(START)
    assert "over 3 bytes" in str(refuse(frames))


START = control.StartDaemon(
    name="etl",
    token="t",
    digest="d",
    summary="script",
    python="3.9",
    python_is_default=False,
    caller_python="/usr/bin/python3",
    environ={"PATH": "/bin"},
    cwd="/",
    sys_path=["/src"],
    definition=b"opaque",
)


def test_a_definition_travels_outside_the_header() -> None:
    """Bytes are frames of their own and never become text."""
    head, definition = control.encode(START)
    assert definition == b"opaque"
    assert b"opaque" not in head
    assert "no frame" in str(refuse([head]))
    assert "1 frames too many" in str(refuse([head, definition, b"more"]))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"name": 7}, "StartDaemon.name must be"),
        ({"python_is_default": 1}, "StartDaemon.python_is_default must be"),
        ({"environ": {"A": 1}}, "StartDaemon.environ must be"),
        ({"environ": ["A"]}, "StartDaemon.environ must be"),
        ({"sys_path": "src"}, "StartDaemon.sys_path must be"),
        ({"sys_path": [1]}, "StartDaemon.sys_path must be"),
        ({"if_exists": "explode"}, "StartDaemon.if_exists must be"),
        ({"if_exists": ["attach"]}, "StartDaemon.if_exists must be"),
        ({"start_timeout": "60"}, "StartDaemon.start_timeout must be"),
        ({"start_timeout": True}, "StartDaemon.start_timeout must be"),
        ({"idle_timeout": "0"}, "StartDaemon.idle_timeout must be"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(body: dict[str, Any], complaint: str) -> None:
    """The refusal says which field it is."""
    assert complaint in str(refuse([header(START, body=body), b""]))


def test_whole_numbers_are_numbers() -> None:
    """`start_timeout=5` arrives as 5.0; JSON does not tell them apart either."""
    decoded = control.decode([header(START, body={"start_timeout": 5}), b""]).message
    assert isinstance(decoded, control.StartDaemon)
    assert repr(decoded.start_timeout) == "5.0"


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1" + 400 * "0"])
def test_a_time_is_finite(text: str) -> None:
    """JSON's parser lets these through; a deadline of that would confuse whoever waits for it."""
    frame = header(START, body={"start_timeout": 12345}).replace(b"12345", text.encode())
    assert "StartDaemon.start_timeout must be" in str(refuse([frame, b""]))


def test_a_listing_checks_each_status() -> None:
    """Nested messages are checked like others."""
    listing = control.Listing(())
    assert "must be" in str(refuse([header(listing, body={"daemons": {}})]))
    assert "DaemonStatus" in str(refuse([header(listing, body={"daemons": [{"name": "x"}]})]))
    assert "has no body" in str(refuse([header(listing, body={"daemons": ["x"]})]))


def test_a_newer_field_is_skipped_and_a_missing_one_defaults() -> None:
    """Minor versions may add fields."""
    assert control.decode([header(control.Done("x"), body={"colour": "red"})]) == control.Envelope(
        5, control.Done("x")
    )
    content = json.loads(control.encode(control.Done("x"))[0])
    del content["body"]["detail"]
    assert control.decode([json.dumps(content).encode()]).message == control.Done()


@pytest.mark.parametrize("number", ["7", None, True, 1.5])
def test_a_request_id_is_a_number(number: object) -> None:
    """Without one nobody could pair the answer."""
    frame = header(control.Done(), id=number)
    assert "request id" in str(refuse([frame]))
    assert control.peek_request_id([frame]) == 0


def test_an_unknown_type_is_refused() -> None:
    """And its request id is found, so that the refusal arrives."""
    frame = header(control.Done(), type="Explode")
    assert "no message type 'Explode'" in str(refuse([frame]))
    assert control.peek_request_id([frame]) == 5


@pytest.mark.parametrize("protocol", [99, 0, -1, None, "1", True, 1.0])
def test_another_protocol_is_told_in_words(protocol: object) -> None:
    """The error names the message, both protocols and the next step."""
    with pytest.raises(errors.VersionMismatch, match="spawny supervisor upgrade") as caught:
        control.decode([header(control.FindDaemon("x"), protocol=protocol)])
    assert f"FindDaemon needs control protocol {protocol!r}" in str(caught.value)


FROZEN = [
    control.Hello("9.9"),
    control.Welcome("9.9", 1, "python", False),
    control.ListDaemons("x"),
    control.Listing(()),
    control.StopDaemon("x"),
    control.Done("x"),
    control.Refused("SpawnyError", "x"),
]


@pytest.mark.parametrize("message", FROZEN, ids=lambda each: type(each).__name__)
def test_a_frozen_message_is_read_whatever_its_protocol(message: control.Message) -> None:
    """Any two versions can say what they are, list and stop."""
    assert control.decode([header(message, protocol=99)]).message == message
    assert control.protocol_of(message) == 1


def test_every_frozen_message_is_listed() -> None:
    """And nothing else is."""
    assert {type(each).__name__ for each in FROZEN} == control.FROZEN


@dataclass(frozen=True, slots=True)
class Paint(control.Message):
    """A request of the first protocol, to which the second has added a colour."""

    name: str
    colour: str = control.since(2, "")


def test_a_request_is_said_in_the_oldest_protocol_that_can() -> None:
    """A newer field asks for the newer protocol only where it says something."""
    assert control.protocol_of(Paint("x")) == 1
    assert control.protocol_of(Paint("x", "red")) == 2
    assert json.loads(control.encode(START)[0])["protocol"] == 1


def test_a_refusal_becomes_its_error() -> None:
    """The named class of our own tree, with its attributes; anything else is the base."""
    start = control.Refused("DaemonStartError", "m", output="o", remote_traceback="t").exception()
    assert isinstance(start, errors.DaemonStartError)
    assert (start.output, start.remote_traceback) == ("o", "t")
    died = control.Refused("DaemonDied", "m", exit_code=3).exception()
    assert isinstance(died, errors.DaemonDied)
    assert died.exit_code == 3
    assert isinstance(control.Refused("DaemonNotFound", "m").exception(), errors.DaemonNotFound)
    for name in ("annotations", "RemoteTraceback", "SystemExit", "__name__"):
        assert type(control.Refused(name, "m").exception()) is errors.SpawnyError


def test_every_message_is_known_to_the_codec() -> None:
    """One that is declared and not registered could be sent but not received."""
    for kind in MESSAGES:
        assert control._MESSAGES[kind.__name__] is kind
        assert all(isinstance(each.name, str) for each in fields(kind))
