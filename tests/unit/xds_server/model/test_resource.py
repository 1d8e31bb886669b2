from __future__ import annotations

import pytest

from tests.support.xds import CDS, LDS, cluster
from xds_server.model.resource import Resource, ResourceSet


class TestResource:
    def test_version_is_of_the_content_alone(self):
        one, same, other = Resource.of(CDS, "a", b"x"), Resource.of(LDS, "b", b"x"), Resource.of(CDS, "a", b"y")
        assert one.version == same.version
        assert one.version != other.version

    def test_version_is_the_same_in_every_process(self):
        assert Resource.of(CDS, "a", b"x").version == "82eb5f36d44e01d4c0a8"

    def test_body_is_not_in_its_repr(self):
        assert "secret" not in repr(Resource.of(CDS, "a", b"secret"))


class TestResourceSet:
    def test_is_in_order_of_names(self):
        assert list(ResourceSet([cluster("b"), cluster("c"), cluster("a")])) == ["a", "b", "c"]

    def test_version_does_not_depend_on_the_order_given(self):
        assert ResourceSet([cluster("a"), cluster("b")]) == ResourceSet([cluster("b"), cluster("a")])

    @pytest.mark.parametrize(
        "other",
        [[], [cluster("a")], [cluster("a"), cluster("b", 2)], [cluster("a"), cluster("c")]],
        ids=["empty", "fewer", "another content", "another name"],
    )
    def test_version_differs_with_the_content(self, other):
        assert ResourceSet([cluster("a"), cluster("b")]) != ResourceSet(other)

    def test_version_tells_names_apart_that_run_into_each_other(self):
        one = Resource(name="ab", type_url=CDS, body=b"", version="c")
        two = Resource(name="a", type_url=CDS, body=b"", version="bc")
        assert ResourceSet([one]).version != ResourceSet([two]).version

    def test_is_a_mapping(self):
        resources = ResourceSet([cluster("a")])
        assert resources["a"] == cluster("a")
        assert resources.get("b") is None
        assert len(resources) == 1
        assert hash(resources) == hash(ResourceSet([cluster("a")]))

    def test_the_later_of_one_name_counts(self):
        assert ResourceSet([cluster("a", 1), cluster("a", 2)]) == ResourceSet([cluster("a", 2)])
