from ipaddress import ip_network

from local_proxy.intercept import names
from local_proxy.intercept.names import Names


def test_a_name_without_an_address_means_the_same_for_as_long_as_its_stand_in_is_its_own(monkeypatch):
    monkeypatch.setattr(names, "VIRTUAL", ip_network("198.18.0.0/29"))
    it = Names()
    given = {name: it.stand_in(name) for name in "abcdef"}
    assert len(set(given.values())) == 6
    assert {name: it.stand_in(name) for name in "abcdef"} == given
    assert it.stand_in("g") == given["a"], "they are used again"
    for name in "agba":
        assert it.meant(it.stand_in(name)) == name
        assert it.of(it.stand_in(name)) == (name,)


def test_names_are_not_remembered_without_end(monkeypatch):
    monkeypatch.setattr(names, "VIRTUAL", ip_network("198.18.0.0/29"))
    it = Names()
    for number in range(100):
        it.stand_in(f"host-{number}")
    assert len(it._virtual) == len(it._meant) == 6
