"""Canonical addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.publishing.addresses import canonical_address, host_of, origin_of, path_of, same_site

SAME = {
    "https://example.com/": (
        "HTTPS://Example.COM",
        "https://example.com:443/#top",
        "https://example.com./",
        " https://example.com/\n",
    ),
    "http://example.com/~a/%2F": ("http://example.com:80/%7ea/%2f", "http://example.com/x/../%7Ea/./%2F"),
    "https://example.com:8443/a?b=%C3%A9": ("https://example.com:8443/a?b=é", "https://EXAMPLE.com:8443/a?b=%c3%a9#x"),
    "https://xn--bcher-kva.example/a%20b": ("https://bücher.example/a b",),
    "http://[::1]:8080/": ("http://[::1]:8080",),
    "https://example.com/100%25": ("https://example.com/100%",),
}


@pytest.mark.parametrize("form", SAME)
def test_spellings_of_one_address(form: str) -> None:
    assert [canonical_address(one) for one in (form, *SAME[form])] == [form] * (1 + len(SAME[form]))


@pytest.mark.parametrize(
    "bad",
    [
        "ftp://example.com/",
        "javascript:alert(1)",
        "mailto:a@b",
        "https://",
        "https://user:key@example.com/",
        "http://exa mple.com/",
        "http://example.com:99999/",
        "http://example.com:0/",
        "http://[::1/",
        "//",
        "https://" + "a" * 5000,
        "http://a..b/",
        "data:text/html,x",
    ],
)
def test_what_is_no_address(bad: str) -> None:
    assert canonical_address(bad) is None


def test_relative_addresses() -> None:
    base = "https://example.com/a/b?c"
    links = ["d", "/d", "../d", "?e", "//other.org/x", "#f", "/a//b", ".", "http:/x"]
    found = [canonical_address(link, base) for link in links]
    assert found[:4] == [
        "https://example.com/a/d",
        "https://example.com/d",
        "https://example.com/d",
        "https://example.com/a/b?e",
    ]
    assert found[4:8] == ["https://other.org/x", base, "https://example.com/a//b", "https://example.com/a/"]


@given(st.text(max_size=40))
def test_the_canonical_form_stays_as_it_is(text: str) -> None:
    for address in (text, f"http://example.com/{text}"):
        found = canonical_address(address)
        if found is not None:
            assert canonical_address(found) == found
            assert found.isascii()
            assert origin_of(found) + path_of(found) == found
            assert host_of(found)


def test_the_www_twin_is_the_same_site() -> None:
    assert same_site("example.com", "www.example.com")
    assert not same_site("example.com", "example.com.evil.org")
    assert not same_site("docs.example.com", "example.com")
