from ipaddress import ip_address

from local_proxy.intercept.resolv_conf import ResolvConf, parse_resolv_conf


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
