import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.intercept.filter import ALWAYS, ARCHITECTURES, PLACES, Call, filter_program, places

ALLOW, NOTIFY = "allow", "notify"
X86, ARM = ARCHITECTURES["x86_64"], ARCHITECTURES["aarch64"]
FASTOPEN = 0x20000000
both = pytest.mark.parametrize("architecture", [X86, ARM], ids=["x86_64", "aarch64"])


def verdict(program, audit, number, arguments=()):
    """What the kernel makes of a call: a machine of its own, after linux/filter.h."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, audit, 0, *(*arguments, *[0] * (6 - len(arguments))))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case 0x54:
                accumulator &= value
            case 0x06:
                break
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")
    if value & 0xFFFF0000 == 0x00050000:
        return errno.errorcode[value & 0xFFFF]
    return {0x7FFF0000: ALLOW, 0x7FC00000: NOTIFY}[value]


@both
def test_what_needs_an_answer_is_reported(architecture):
    program, calls = filter_program(architecture), architecture.calls
    assert verdict(program, architecture.audit, calls[Call.CONNECT], (3, 0xDEAD, 16)) == NOTIFY
    assert verdict(program, architecture.audit, calls[Call.GETPEERNAME], (3, 1, 1)) == NOTIFY
    for call in (Call.BIND, Call.LISTEN, Call.GETSOCKNAME):
        assert verdict(program, architecture.audit, calls[call], (3, 1, 16)) == ALLOW


@both
@pytest.mark.parametrize("call", [Call.BIND, Call.LISTEN, Call.GETSOCKNAME])
def test_others_are_reported_where_asked_for(architecture, call):
    program = filter_program(architecture, ALWAYS | {call})
    assert verdict(program, architecture.audit, architecture.calls[call], (3,)) == NOTIFY


@both
@pytest.mark.parametrize("call", [Call.SENDTO, Call.RECVFROM])
def test_datagrams_are_reported_only_with_an_address(architecture, call):
    program, number = filter_program(architecture), architecture.calls[call]
    assert verdict(program, architecture.audit, number, (3, 1, 10, 0, 0, 0)) == ALLOW
    assert verdict(program, architecture.audit, number, (3, 1, 10, 0, 0x7FFF00000010, 16)) == NOTIFY
    # An address whose lower half is zero is one too.
    assert verdict(program, architecture.audit, number, (3, 1, 10, 0, 0x7FFF00000000, 16)) == NOTIFY


@both
def test_of_socket_options_the_error_alone_is_reported_where_asked_for(architecture):
    number = architecture.calls[Call.GETSOCKOPT]
    program = filter_program(architecture, ALWAYS | {Call.GETSOCKOPT})
    assert verdict(program, architecture.audit, number, (3, 1, 4, 1, 1)) == NOTIFY
    assert verdict(program, architecture.audit, number, (3, 1 | 7 << 32, 4 | 7 << 32, 1, 1)) == NOTIFY
    assert verdict(program, architecture.audit, number, (3, 1, 3, 1, 1)) == ALLOW
    assert verdict(program, architecture.audit, number, (3, 6, 4, 1, 1)) == ALLOW
    assert verdict(filter_program(architecture), architecture.audit, number, (3, 1, 4, 1, 1)) == ALLOW


@both
@pytest.mark.parametrize("call", [Call.SENDMSG, Call.SENDMMSG, Call.RECVMSG, Call.RECVMMSG])
def test_messages_are_reported_of_udp_sockets_alone_by_their_numbers(architecture, call):
    program, number = filter_program(architecture, placed=range(192, 256)), architecture.calls[call]
    told = [fd for fd in range(1100) if verdict(program, architecture.audit, number, (fd, 1)) == NOTIFY]
    assert told == list(range(192, 256))
    none = filter_program(architecture, placed=places(100))
    assert all(verdict(none, architecture.audit, number, (fd, 1)) == ALLOW for fd in range(1100))
    # A descriptor is an int: what the register holds above counts for nothing.
    assert verdict(program, architecture.audit, number, (200 | 0xDEAD << 32, 1)) == NOTIFY
    assert verdict(program, architecture.audit, number, (0xFFFFFFFF, 1)) == ALLOW


INET, INET6, UNIX, NETLINK = 2, 10, 1, 16
STREAM, DATAGRAM, RAW, SEQPACKET = 1, 2, 3, 5
CLOSE_ON_EXEC, NONBLOCK = 0o2000000, 0o4000


@both
@given(
    domain=st.sampled_from([INET, INET6, UNIX, NETLINK, 0, 17]),
    kind=st.sampled_from([STREAM, DATAGRAM, RAW, SEQPACKET]),
    flags=st.sampled_from([0, CLOSE_ON_EXEC, NONBLOCK, CLOSE_ON_EXEC | NONBLOCK]),
    protocol=st.sampled_from([0, 1, 6, 17, 58, 132, 136]),  # none, ICMP, TCP, UDP, ICMPv6, SCTP, UDP-Lite
)
def test_of_sockets_those_of_udp_are_reported(architecture, domain, kind, flags, protocol):
    found = verdict(
        filter_program(architecture),
        architecture.audit,
        architecture.calls[Call.SOCKET],
        (domain, kind | flags, protocol),
    )
    assert (found == NOTIFY) is (domain in (INET, INET6) and kind == DATAGRAM and protocol in (0, 17))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(-1, PLACES), (1 << 20, PLACES), (1024, PLACES), (256, range(192, 256)), (255, range(0)), (10, range(0))],
)
def test_numbers_are_the_highest_that_a_process_may_have(limit, expected):
    assert places(limit) == expected


@both
def test_fast_open_and_io_uring_look_switched_off(architecture):
    program, calls = filter_program(architecture), architecture.calls
    assert verdict(program, architecture.audit, calls[Call.SENDTO], (3, 1, 10, FASTOPEN, 1, 16)) == "ENOTSUP"
    assert verdict(program, architecture.audit, calls[Call.SENDMSG], (3, 1, FASTOPEN | 0x4000)) == "ENOTSUP"
    assert verdict(program, architecture.audit, calls[Call.SENDMSG], (3, 1, 0x4000)) == ALLOW
    assert verdict(program, architecture.audit, calls[Call.SENDMMSG], (3, 1, 1, FASTOPEN)) == "ENOTSUP"
    assert verdict(program, architecture.audit, architecture.io_uring_setup, (8, 1)) == "ENOSYS"


@both
@given(number=st.integers(0, 600), arguments=st.tuples(*[st.integers(0, 2**64 - 1)] * 6))
def test_every_other_call_is_allowed(architecture, number, arguments):
    concerned = {*architecture.calls.values(), architecture.io_uring_setup}
    if number not in concerned:
        assert verdict(filter_program(architecture), architecture.audit, number, arguments) == ALLOW


def test_x32_calls_are_refused():
    assert verdict(filter_program(X86), X86.audit, 0x40000000 | 42) == "ENOSYS"
    assert verdict(filter_program(X86), X86.audit, -1) == "ENOSYS"


def test_a_32_bit_program_runs_but_has_no_network():
    program = filter_program(X86)
    i386 = 0x40000003
    assert verdict(program, i386, 4) == ALLOW  # write
    assert {verdict(program, i386, number) for number in (102, 362, 369, 425)} == {"ENOSYS"}
    # 42 is connect on x86_64, and pipe on i386.
    assert verdict(program, i386, 42) == ALLOW
    arm = 0x40000028
    assert verdict(filter_program(ARM), arm, 283) == "ENOSYS"
    assert verdict(filter_program(ARM), arm, 203) == ALLOW


@pytest.mark.parametrize(
    ("architecture", "audit", "socket", "sendmsg", "sendmmsg"),
    [(X86, 0x40000003, 359, 370, 345), (ARM, 0x40000028, 281, 296, 374)],
    ids=["i386", "arm"],
)
def test_nothing_of_a_32_bit_program_leads_out_and_it_may_serve(architecture, audit, socket, sendmsg, sendmmsg):
    program = filter_program(architecture)
    for domain in (INET, INET6):
        for protocol in (0, 17):
            assert verdict(program, audit, socket, (domain, DATAGRAM | CLOSE_ON_EXEC, protocol)) == "ENOSYS"
        assert verdict(program, audit, socket, (domain, STREAM, 0)) == ALLOW
    assert verdict(program, audit, socket, (UNIX, DATAGRAM, 0)) == ALLOW
    assert verdict(program, audit, sendmsg, (3, 1, FASTOPEN)) == "ENOTSUP"
    assert verdict(program, audit, sendmsg, (3, 1, 0)) == ALLOW
    assert verdict(program, audit, sendmmsg, (3, 1, 1, FASTOPEN)) == "ENOTSUP"
    assert verdict(program, audit, sendmmsg, (3, 1, 1, 0)) == ALLOW


@both
def test_an_unknown_architecture_is_refused(architecture):
    assert verdict(filter_program(architecture), 0x80000016, architecture.calls[Call.CONNECT]) == "ENOSYS"


def test_a_number_names_its_call():
    assert X86.call(42) is Call.CONNECT
    assert ARM.call(42) is None
