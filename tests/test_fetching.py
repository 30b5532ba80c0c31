"""Polite downloads: every hazard has its fate, nothing but the right bytes is stored, no private address is reached."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="the `data` extra is not installed")

from picture_server import HAZARDS, MENDED, PictureServer, recorded, sha256

from evalkit.datasets.addresses import PrivateAddress, check_address, is_public
from evalkit.datasets.fetching import Fetcher, FetchLimits, Wanted
from evalkit.errors import DataError

QUICK = FetchLimits(timeout_s=1.5, max_bytes=1 << 20, first_wait_s=0.01, attempts=2, per_host=64)


@pytest.fixture
def server():
    with PictureServer() as running:
        yield running


def fetcher(tmp_path, server, limits=QUICK):
    return Fetcher(tmp_path / "files", limits, {f"127.0.0.1:{server.port}"})


def wanted(server, *kinds):
    return [Wanted(f"{server.url}/{kind}/{i}.jpg", sha256(kind, i)) for i, kind in enumerate(kinds)]


def kind_of(fate):
    return fate.wanted.url.split("/")[-2]


def stored(tmp_path):
    return sorted(path.name for path in (tmp_path / "files").rglob("*") if path.is_file())


def test_every_hazard_has_its_fate(tmp_path, server):
    kinds = ["ok", *MENDED, *HAZARDS]
    fates = {kind_of(fate): fate for fate in fetcher(tmp_path, server).fetch(iter(wanted(server, *kinds)))}
    decoded_later = ("bomb", "torn")  # their bytes are those that were recorded
    expected = dict.fromkeys(("ok", *MENDED, *decoded_later), "ok")
    assert {kind: fate.outcome for kind, fate in fates.items()} == {**HAZARDS, **expected}
    good = [item.sha256 for item in wanted(server, *kinds) if "/".join(item.url.split("/")[3:4]) in expected]
    assert stored(tmp_path) == sorted(good)
    assert fates["404"].detail == "HTTP 404"
    assert fates["404"].attempts == 1
    assert fates["500"].attempts == QUICK.attempts
    assert fates["503-once"].attempts == 2
    assert fates["inside"].detail == "127.0.0.1 is not a public address"
    assert fates["hop"].n_bytes == len(recorded("hop", kinds.index("hop")))


def test_what_is_there_is_not_asked_for_again_unless_it_is_damaged(tmp_path, server):
    items = wanted(server, "ok", "ok")
    one = fetcher(tmp_path, server)
    assert [fate.attempts for fate in one.fetch(iter(items))] == [1, 1]
    one.path(items[1].sha256).write_bytes(b"damaged")
    again = {fate.wanted: fate.attempts for fate in one.fetch(iter(items))}
    assert again == {items[0]: 0, items[1]: 1}
    assert server.paths() == ["/ok/0.jpg", "/ok/1.jpg", "/ok/1.jpg"] or len(server.log) == 3
    assert hashlib.sha256(one.path(items[1].sha256).read_bytes()).hexdigest() == items[1].sha256


def test_a_reserve_can_follow_a_failure(tmp_path, server):
    """The producer learns of a failure before it is asked for more."""
    seen = []

    def producer():
        yield Wanted(f"{server.url}/404/1.jpg", sha256("404", 1))
        while not seen:
            yield None
        yield Wanted(f"{server.url}/ok/2.jpg", sha256("ok", 2))

    for fate in fetcher(tmp_path, server).fetch(producer()):
        seen.append(fate.outcome)  # noqa: PERF401  (the producer looks at it meanwhile)
    assert seen == ["http_status", "ok"]


def test_at_most_so_many_at_once_to_a_host(tmp_path):
    with PictureServer(latency_s=0.02) as server:
        limits = FetchLimits(jobs=16, per_host=2)
        fates = list(fetcher(tmp_path, server, limits).fetch(iter(wanted(server, *["ok"] * 12))))
        assert {fate.outcome for fate in fates} == {"ok"}
        assert server.most_open == 2


def test_a_slow_host_does_not_block_the_others(tmp_path):
    with PictureServer() as slow, PictureServer() as quick:
        items = [Wanted(f"http://localhost:{slow.port}/hang/{i}.jpg", sha256("hang", i)) for i in range(4)]
        items += wanted(quick, *["ok"] * 10)
        limits = FetchLimits(jobs=4, per_host=2, timeout_s=1.5, attempts=1)
        order = [fate.outcome for fate in Fetcher(tmp_path / "files", limits, True).fetch(iter(items))]
    assert order[:10] == ["ok"] * 10
    assert order[10:] == ["timeout"] * 4


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:PORT/ok/0.jpg",
        "http://localhost:PORT/ok/0.jpg",
        "http://2130706433:PORT/ok/0.jpg",
        "http://user:secret@127.0.0.1:PORT/ok/0.jpg",
        "HTTP://[::ffff:127.0.0.1]:PORT/ok/0.jpg",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "http://",
        "nonsense",
        "http://[",
    ],
)
def test_private_addresses_and_other_schemes_are_refused(tmp_path, server, url):
    item = Wanted(url.replace("PORT", str(server.port)), "0" * 64)
    (fate,) = Fetcher(tmp_path / "files", QUICK).fetch(iter([item]))
    assert fate.outcome == "refused"
    assert not server.log


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),  # the metadata of cloud machines
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("4000::1", False),
    ],
)
def test_public_addresses(host, public):
    assert is_public(host) is public


def test_an_allowed_address_is_that_one_alone():
    check_address("127.0.0.1", 80, {"127.0.0.1:80"})
    check_address("127.0.0.1", 81, True)
    with pytest.raises(PrivateAddress, match=r"127\.0\.0\.1 is not a public address"):
        check_address("127.0.0.1", 81, {"127.0.0.1:80"})


def test_a_full_disk_is_one_line(tmp_path, server, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"files: cannot be written \(No space left on device\)"):
        list(fetcher(tmp_path, server).fetch(iter(wanted(server, *["ok"] * 3))))
    assert stored(tmp_path) == []


def test_stopping_early_leaves_nothing_behind(tmp_path, server):
    fates = fetcher(tmp_path, server, FetchLimits()).fetch(iter(wanted(server, "ok", *["hang"] * 5)))
    assert next(fates).outcome == "ok"
    fates.close()
    assert len(stored(tmp_path)) == 1


def test_left_overs_of_a_kill_go(tmp_path, server):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, age in {".part-1-1": 7200, ".part-1-2": 0}.items():
        (folder / name).write_bytes(b"half")
        now = Path(folder / name).stat().st_mtime
        os.utime(folder / name, (now - age, now - age))
    list(fetcher(tmp_path, server).fetch(iter(())))
    assert stored(tmp_path) == [".part-1-2"]
