"""Servers that ignore ranges, lie in their headers, or send on."""

import pytest
from downloading import CONTENT, PATH, PINNED, SIZE, failure, ranges
from lsun_server import Fault

from stages.shared.download import download


def test_a_server_without_ranges_takes_nothing_away(server, target, part):
    part.write_bytes(CONTENT[:200_000])
    server.faults[PATH] = [Fault(ranges=False, drop=1000), *[Fault(ranges=False, drop=n) for n in [150_000] * 5]]
    assert "; 200000 bytes are kept" in failure([server.url + PATH], target, **PINNED)
    assert part.read_bytes() == CONTENT[:200_000]
    assert ranges(server) == ["bytes=200000-"] * 6, "not a new byte in any of them"
    server.faults[PATH] = [Fault(ranges=False, drop=250_000), Fault(ranges=False)]
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[6:] == ["bytes=200000-", "bytes=250000-"]
    target.unlink()
    part.write_bytes(CONTENT[:200_000])
    server.faults[PATH] = [Fault(ranges=False, drop=1000, headers={"Content-Length": None})]
    download([server.url + PATH], target)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[8:] == ["bytes=200000-", "bytes=200000-"]


@pytest.mark.parametrize("stated", ["nonsense", "", "bytes 7-299999/300000", "bytes -7-8/9", "bytes {start}-8/7", None])
def test_after_a_useless_content_range_all_is_asked_for(server, target, part, stated):
    part.write_bytes(CONTENT[:1000])
    server.faults[PATH] = [Fault(headers={"Content-Range": stated})]
    download([server.url + PATH], target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == ["bytes=1000-", None]


@pytest.mark.parametrize("pinned", [PINNED, {}])
@pytest.mark.parametrize("length", ["many", "-5", "1e3", "", "9" * 5000, "٣"])
def test_a_useless_content_length_is_one_line(server, target, length, pinned):
    server.faults[PATH] = [Fault(headers={"Content-Length": length.encode().decode("latin-1")})]
    assert "a useless Content-Length" in failure([server.url + PATH], target, **pinned)


def test_lies_about_the_length(server, target, part):
    server.faults[PATH] = [Fault(length=10)]
    assert f"has {SIZE + 10} bytes, not {SIZE}" in failure([server.url + PATH], target, **PINNED)
    server.faults[PATH] = [Fault(length=-10)]
    assert f"has {SIZE - 10} bytes, not {SIZE}" in failure([server.url + PATH], target, **PINNED)
    server.files["/long"] = CONTENT + b"more"
    server.faults["/long"] = [Fault(headers={"Content-Length": None})]
    assert f"has more than {SIZE} bytes" in failure([server.url + "/long"], target, **PINNED)
    part.unlink()
    server.faults[PATH] = [Fault(drop=1000), Fault(length=-10), Fault(length=10)]  # the Content-Range is right
    download([server.url + PATH], target, **PINNED)
    assert ranges(server)[-3:] == [None, "bytes=1000-", f"bytes={SIZE - 10}-"]
    target.unlink()
    for headers in ({}, {"Content-Length": None, "Content-Range": "bytes {start}-8/*"}):
        server.faults[PATH] = [Fault(drop=1000), Fault(headers=headers, length=10, ending="stall")]
        download([server.url + PATH], target, **PINNED)
        assert ranges(server)[-2:] == [None, "bytes=1000-"], "all is there, whether or not the answer ends"
        target.unlink()
    server.faults[PATH] = [Fault(length=10)]
    download([server.url + PATH], target)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[-2:] == [None, f"bytes={SIZE}-"]


@pytest.mark.parametrize(
    "url",
    ["nowhere", "http://", "http://[::1", "http://a..b/x", "http://x:y/", "ftp://x/y", "http://\n/", "http://ä..ö/"],
)
def test_a_malformed_address_is_one_line(target, url):
    assert failure([url], target).startswith(url.split("\n")[0])


def test_redirects(server, target):
    server.faults[PATH] = [Fault(status=302, headers={"Location": PATH})] * 50
    assert "redirects" in failure([server.url + PATH], target, **PINNED)
    server.faults[PATH] = [Fault(status=302, headers={"Location": "http://a..b/"})]
    failure([server.url + PATH], target, **PINNED)
    server.faults[PATH] = [Fault(status=302, headers={"Location": PATH})]
    download([server.url + PATH], target, **PINNED)
    assert target.read_bytes() == CONTENT
