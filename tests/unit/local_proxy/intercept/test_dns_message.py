import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.intercept.dns_message import (
    BadMessageError,
    Code,
    Type,
    address_record,
    addresses,
    answer,
    encode_name,
    failure,
    name_record,
    read_query,
    reverse_address,
)

EDNS = b"\0" + struct.pack(">HHIH", 41, 4096, 0, 0)


def question(name="inventory", kind=Type.A, *, identity=7, flags=0x0100, extra=b"", group=1):
    counts = (1, 0, 0, 1 if extra else 0)
    return struct.pack(">6H", identity, flags, *counts) + encode_name(name) + struct.pack(">HH", kind, group) + extra


def test_a_question_is_read():
    query = read_query(question("Inventory.SHOP", Type.AAAA))
    assert (query.identity, query.recursion, query.name, query.type) == (7, True, "inventory.shop", Type.AAAA)
    assert (query.datagram, query.extended) == (512, False)


def test_edns_says_how_long_an_answer_may_be_within_reason():
    query = read_query(question(extra=EDNS))
    assert (query.datagram, query.extended) == (1232, True)


def test_the_answer_byte_for_byte_with_the_letters_of_the_question():
    query = read_query(question("InVentory"))
    given = answer(query, Code.NO_ERROR, [address_record(ip_address("10.1.2.3"))], seconds=5, limit=512)
    assert given == (b"\0\7\x81\x80\0\1\0\1\0\0\0\0\x09InVentory\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x0a\1\2\3")


@pytest.mark.parametrize("extra", [b"", EDNS], ids=["plain", "EDNS"])
def test_an_answer_that_is_too_long_says_so_and_has_what_there_is_room_for(extra):
    query = read_query(question(extra=extra))
    meant = [IPv4Address(number) for number in range(100)]
    records = list(map(address_record, meant))
    cut = answer(query, Code.NO_ERROR, records, seconds=5, limit=512)
    _, flags, _, count, _, additional = struct.unpack_from(">6H", cut)
    assert (flags, additional) == (0x8380, len(extra) and 1)
    assert 512 - 16 < len(cut) <= 512, "an address takes 16 bytes"
    assert addresses(cut) == tuple(meant[:count])
    whole = answer(query, Code.NO_ERROR, records, seconds=5, limit=65535)
    assert (whole[2:4], len(addresses(whole))) == (b"\x81\x80", 100)
    assert answer(query, Code.NO_ERROR, records, seconds=5, limit=len(whole)) == whole


@given(st.lists(st.ip_addresses(), max_size=20), st.booleans())
def test_a_reader_reads_the_addresses(given, extended):
    query = read_query(question(extra=EDNS if extended else b""))
    message = answer(query, Code.NO_ERROR, map(address_record, given), seconds=5, limit=65535)
    assert addresses(message) == tuple(given)


def test_addresses_behind_an_alias():
    alias = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 60, 6) + b"\4real\0"
    address = b"\4real\0" + struct.pack(">HHIH", 1, 1, 60, 4) + b"\x0a\1\2\3"
    message = struct.pack(">6H", 7, 0x8180, 1, 2, 0, 0) + question()[12:] + alias + address
    assert addresses(message) == (IPv4Address("10.1.2.3"),)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_question_or_a_refusal(data):
    try:
        query = read_query(data)
    except BadMessageError:
        pass
    else:
        answer(query, Code.NO_ERROR, seconds=0, limit=512)
    assert isinstance(addresses(data), tuple)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=3))
def test_a_damaged_question_is_read_or_refused(at, junk):
    data = question("inventory.shop", extra=EDNS)
    with contextlib.suppress(BadMessageError):
        read_query(data[:at] + junk + data[at + len(junk) :])


@pytest.mark.parametrize(
    ("data", "identity", "code"),
    [
        (b"\0\7", None, Code.FORMAT_ERROR),
        (question(flags=0x8180), None, Code.FORMAT_ERROR),
        (question(flags=0x2800), 7, Code.NOT_IMPLEMENTED),
        (question(group=3), 7, Code.NOT_IMPLEMENTED),
        (question()[:-3], 7, Code.FORMAT_ERROR),
        (struct.pack(">6H", 7, 0x0100, 2, 0, 0, 0) + question()[12:], 7, Code.FORMAT_ERROR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", 7, Code.FORMAT_ERROR),
        (struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + encode_name("a" * 63 + ".") * 5, 7, Code.NOT_IMPLEMENTED),
    ],
    ids=["short", "an answer", "an update", "chaos", "cut off", "two questions", "a loop", "junk behind"],
)
def test_what_is_no_question_is_answered_so_where_it_has_a_number(data, identity, code):
    with pytest.raises(BadMessageError) as error:
        read_query(data)
    assert (error.value.identity, error.value.code) == (identity, code)


def test_a_failure_has_nothing_but_its_number():
    assert failure(7, Code.FORMAT_ERROR) == b"\0\7\x80\x81\0\0\0\0\0\0\0\0"


def test_a_dot_in_a_label_is_no_other_name():
    data = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\x06a.shop\0\0\1\0\1"
    assert read_query(data).name != "a.shop"


@given(st.ip_addresses())
def test_reverse_names(address):
    assert reverse_address(address.reverse_pointer) == address


@pytest.mark.parametrize("name", ["1.2.3.in-addr.arpa", "x.ip6.arpa", "in-addr.arpa", "inventory", "1.2.ip6.arpa"])
def test_what_is_no_reverse_name(name):
    assert reverse_address(name) is None


def test_records():
    assert address_record(IPv6Address("::1")).type == Type.AAAA
    assert name_record("inventory.shop").data == b"\x09inventory\4shop\0"
