import asyncio
from ipaddress import ip_address

from local_proxy.intercept.dns import Forwarder
from local_proxy.intercept.resolv_conf import Current, ResolvConf, parse_resolv_conf


def test_servers_and_search_list():
    text = """
    # made by someone
    domain old.example
    search Corp.Example. svc.cluster.local   ; the last one counts
    nameserver 10.0.0.2
    nameserver fe80::1%eth0
    nameserver nonsense
    nameserver 127.0.0.53
    nameserver 10.0.0.5
    options ndots:2
    """
    conf = parse_resolv_conf(text)
    assert conf == ResolvConf(("10.0.0.2", "fe80::1%eth0", "127.0.0.53"), ("corp.example", "svc.cluster.local"))
    assert ip_address("fe80::1") in conf.addresses


def test_without_servers_it_is_this_machine():
    assert parse_resolv_conf("search\n") == ResolvConf(("127.0.0.1",), ())


def test_a_network_that_changes_is_followed(tmp_path):
    path = tmp_path / "resolv.conf"
    current = Current(str(path))
    assert current.now() == ResolvConf()
    path.write_text("nameserver 192.168.1.1\nsearch home\n")
    assert current.now() == ResolvConf(("192.168.1.1",), ("home",))
    assert current.now() is current.now()
    new = tmp_path / "new"
    new.write_text("nameserver 127.0.0.1\nsearch corp.example\n")
    new.rename(path)  # as NetworkManager does
    assert current.now() == ResolvConf(("127.0.0.1",), ("corp.example",))
    assert ip_address("127.0.0.1") in current
    assert ip_address("192.168.1.1") not in current


async def test_questions_go_to_the_name_servers_of_the_moment(tmp_path):
    path = tmp_path / "resolv.conf"
    current = Current(str(path))

    async def served(port, host):
        answered, running = [], asyncio.get_running_loop()

        class Server(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, source):
                answered.append(data)
                self.transport.sendto(data + host.encode(), source)

        transport, _ = await running.create_datagram_endpoint(Server, local_addr=(host, port))
        return transport

    first = await served(0, "127.0.0.2")
    port = first.get_extra_info("sockname")[1]
    second = await served(port, "127.0.0.3")
    forward = Forwarder(lambda: current.now().name_servers, port)
    for host in ("127.0.0.2", "127.0.0.3"):
        path.write_text(f"# {host}\nnameserver {host}\n")
        assert await forward(b"xx", False) == b"xx" + host.encode()
    first.close()
    second.close()
