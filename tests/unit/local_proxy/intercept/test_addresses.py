import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_proxy.intercept.addresses import Endpoint, UnixPath, authority, parse, proxy_header
from tests.support.proxy_header import read_header

HERE = Endpoint(IPv4Address("127.0.0.1"), 40000)
endpoints = st.builds(Endpoint, st.ip_addresses(), st.integers(0, 65535))


def inet(address, port):
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(address) + bytes(8)


def inet6(address, port, scope=0):
    head = struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", port, 0)
    return head + socket.inet_pton(socket.AF_INET6, address) + struct.pack("=I", scope)


def test_internet_addresses():
    assert parse(inet("10.1.2.3", 80)) == Endpoint(IPv4Address("10.1.2.3"), 80)
    assert parse(inet6("2001:db8::1", 443)) == Endpoint(IPv6Address("2001:db8::1"), 443)


def test_a_mapped_address_is_the_one_it_means():
    assert parse(inet6("::ffff:10.1.2.3", 80)) == Endpoint(IPv4Address("10.1.2.3"), 80)


def test_as_short_as_the_kernel_takes_them():
    assert parse(inet6("2001:db8::1", 443)[:24]) == Endpoint(IPv6Address("2001:db8::1"), 443)
    assert parse(inet6("2001:db8::1", 443)[:23]) is None
    assert parse(inet("10.1.2.3", 80)[:15]) is None


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/run/x.sock\0\0\0", b"/run/x.sock"),
        (b"/run/x.sock", b"/run/x.sock"),
        (b"\0abstract\0\0", b"\0abstract"),
        (b"", b""),
    ],
)
def test_unix_paths(raw, path):
    assert parse(struct.pack("=H", socket.AF_UNIX) + raw) == UnixPath(path)


@given(st.binary(max_size=130))
def test_any_bytes_are_read_or_left_to_the_kernel(raw):
    assert parse(raw) is None or isinstance(parse(raw), Endpoint | UnixPath)


def test_an_authority_has_brackets_where_it_must():
    assert authority("10.1.2.3", 80) == "10.1.2.3:80"
    assert authority("fd00::1", 80) == "[fd00::1]:80"
    assert str(Endpoint(ip_address("fd00::1"), 80)) == "[fd00::1]:80"


def test_the_header_byte_for_byte():
    header = proxy_header(HERE, Endpoint(IPv4Address("10.1.2.3"), 80), "10.1.2.3:80", "shop")
    assert header == (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x21"
        b"\x7f\0\0\x01\x0a\x01\x02\x03\x9c\x40\0\x50"
        b"\x02\0\x0b10.1.2.3:80"
        b"\xe0\0\x04shop"
    )


@given(
    endpoints,
    endpoints,
    st.from_regex(r"[a-z.]{1,60}:[0-9]{1,5}", fullmatch=True),
    st.from_regex(r"[a-z.]{0,60}", fullmatch=True),
)
def test_a_reader_reads_what_was_written(source, destination, target, name):
    rest, read = read_header(proxy_header(source, destination, target, name) + b"GET /")
    assert rest == b"GET /"
    assert (read.source, read.destination) == (meant(source), meant(destination))
    assert (read.authority, read.name) == (target, name or None)


def meant(endpoint):
    mapped = getattr(endpoint.address, "ipv4_mapped", None)
    return Endpoint(mapped or endpoint.address, endpoint.port)
