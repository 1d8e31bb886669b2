import contextlib
import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.intercept.answers import Answer, AnswerReader, problem
from tests.support.intercepted import packed

# As Envoy 1.40 wrote them.
CONNECTED = (
    b"\x92\xa1t\x91\x92\xcek\t\x11n\x85\xa6answer\x81\xa7headers\x93\x82\xa3key\xa7:status\xa5value\xa3200\x82\xa3key\xa4date"
    b"\xa5value\xbdFri, 27 Nov 2026 05:13:17 GMT\x82\xa3key\xa6server\xa5value\xa5envoy\xa5flags\xa1-\xa4from\xaf127.0.0.1:56220"
    b"\xa4type\xb4TcpUpstreamConnected\xa3why\xc0"
)
REFUSED = (
    b"\x92\xa1t\x91\x92\xcek\t\x11y\x85\xa6answer\x81\xa7headers\x96\x82\xa3key\xa7:status\xa5value\xa3503\x82\xa3key\xb0x-hairpin-"
    b"failed\xa5value\xd9kupstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_"
    b"refused}\x82\xa3key\xaecontent-length\xa5value\xa298\x82\xa3key\xaccontent-type\xa5value\xaatext/plain\x82\xa3key\xa4date"
    b"\xa5value\xbdFri, 27 Nov 2026 05:13:29 GMT\x82\xa3key\xa6server\xa5value\xa5envoy\xa5flags\xa6UF,URX\xa4from\xaf127.0.0.1:50438"
    b"\xa4type\xb0TcpConnectionEnd\xa3why\xb3tunnel_response:503"
)
FAILED = "upstream_reset_before_response_started{%s}"


def answer(status, **more):
    return Answer(source="127.0.0.1:1", status=status, **more)


@given(cuts=st.lists(st.integers(0, len(CONNECTED + REFUSED)), max_size=8))
def test_answers_are_read_in_whatever_pieces_they_come(cuts):
    reader, stream, found = AnswerReader(), CONNECTED + REFUSED, []
    edges = [0, *sorted(cuts), len(stream)]
    for begin, end in itertools.pairwise(edges):
        found += reader.feed(stream[begin:end])
    first, second = found
    assert (first.source, first.connected) == ("127.0.0.1:56220", True)
    assert (second.source, second.connected, second.status) == ("127.0.0.1:50438", False, 503)
    assert problem(second) == (errno.ECONNREFUSED, "nothing listens there")


@given(
    st.recursive(
        st.none() | st.text(max_size=40) | st.integers(0, 2**32 - 1),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    )
)
def test_messages_of_other_kinds_say_nothing(value):
    assert list(AnswerReader().feed(packed(value) + CONNECTED))[-1].source == "127.0.0.1:56220"


@given(st.binary(max_size=200))
def test_what_is_no_message_is_an_error_or_waited_out(data):
    reader = AnswerReader()
    with contextlib.suppress(ValueError):
        assert all(isinstance(found, Answer) for found in reader.feed(data))


def test_a_message_without_end_is_an_error():
    reader, endless = AnswerReader(), b"\xdb\xff\xff\xff\xff"
    assert list(reader.feed(endless + bytes(40_000))) == []
    with pytest.raises(ValueError, match="without end"):
        list(reader.feed(bytes(2_000_000)))


@pytest.mark.parametrize(
    ("heard", "error"),
    [
        (None, errno.ENETUNREACH),
        (answer(0, flags="UF"), errno.ENETUNREACH),
        (answer(403, refused="use the other"), errno.ECONNREFUSED),
        (answer(403), errno.ENETUNREACH),  # the session is not known
        (answer(502, refused="gone.test does not resolve"), errno.EHOSTUNREACH),
        (answer(503, refused="not heard of policies yet"), errno.EHOSTUNREACH),
        (answer(503, failed=FAILED % "connection_timeout"), errno.ETIMEDOUT),
        (answer(504), errno.ETIMEDOUT),
        (
            answer(503, failed=FAILED % "remote_connection_failure|delayed_connect_error:_No_route_to_host"),
            errno.EHOSTUNREACH,
        ),
        (
            answer(503, failed=FAILED % "remote_connection_failure|delayed_connect_error:_Connection_timed_out"),
            errno.ETIMEDOUT,
        ),
        (
            answer(503, failed=FAILED % "remote_connection_failure|immediate_connect_error:_Network_is_unreachable"),
            errno.ENETUNREACH,
        ),
        (answer(503, failed=FAILED % "connection_termination"), errno.ECONNREFUSED),
        (answer(503), errno.ECONNREFUSED),  # of an agent that does not say why
    ],
)
def test_each_answer_has_its_errno_and_words(heard, error):
    number, words = problem(heard)
    assert errno.errorcode[number] == errno.errorcode[error]
    assert words
