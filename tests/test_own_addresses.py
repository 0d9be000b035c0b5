"""A recording's URL that leads back to this host is refused, on a network where this host has public addresses.

Collected where network namespaces can be made; `.ci/run` sees to it that they can.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.namespaces import Host, two_hosts
from tests.support.waiting import PATIENCE_SECONDS

PORT = 8080
FIRST, SECOND, THIRD = "11.22.33.44", "11.22.33.45", "11.99.0.1"
SIXTH = "2a00:1450:1::44"
ROUTED = "11.88.0.7"
BEHIND_NAT64 = "64:ff9b::0b16:212c"  # FIRST, as an IPv6-only network would write it
KNOWN_AS = "11.22.33.99"
VENDOR, VENDOR_SIXTH = "11.22.33.46", "2a00:1450:1::46"

REFUSED = [400, "Recording could not be downloaded: its host is this server"]
STORED = [201, None]


def url(host: str, path: str = "/a.mp3") -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{PORT}{path}"


@dataclass(frozen=True)
class Network:
    """A host for the relay, which holds every address but the vendor's, and a vendor beside it."""

    relay: Host
    canary: "subprocess.Popen[str]"

    def ingest(self, folder: Path, *urls: str, **settings: Any) -> dict[str, Any]:
        """Have the relay ingest a call with each of the recordings; return status and error by URL."""
        wanted = {"folder": str(folder), "settings": {"download_allowed_networks": ""} | settings, "urls": urls}
        ingesting = self.relay.start("tests.support.ingesting")
        output, _ = ingesting.communicate(json.dumps(wanted), timeout=PATIENCE_SECONDS)
        return dict(json.loads(output.splitlines()[-1]))

    def asked_of_canary(self) -> list[str]:
        """Return what was asked of the server on the relay's own host."""
        self.canary.terminate()
        return self.canary.communicate(timeout=PATIENCE_SECONDS)[0].splitlines()


@pytest.fixture
def network() -> Iterator[Network]:
    with two_hosts() as (relay, vendor), contextlib.ExitStack() as running:
        for address in (f"{FIRST}/24", f"{SECOND}/24"):
            relay.ip("address", "add", address, "dev", "cable")
        relay.ip("address", "add", f"{THIRD}/32", "dev", "lo")
        relay.ip("route", "add", "local", "11.88.0.0/24", "dev", "lo")
        relay.ip("-6", "address", "add", f"{SIXTH}/64", "dev", "cable", "nodad")
        for address in (f"{VENDOR}/24", f"{KNOWN_AS}/24"):
            vendor.ip("address", "add", address, "dev", "cable")
        vendor.ip("-6", "address", "add", f"{VENDOR_SIXTH}/64", "dev", "cable", "nodad")
        servers = [host.start("tests.support.recording_host", str(PORT)) for host in (relay, vendor)]
        for server in servers:
            running.enter_context(server)
            running.callback(server.kill)
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
        yield Network(relay, servers[0])


@pytest.mark.parametrize("binds_anywhere", [False, True])
def test_recording_is_refused_if_its_host_is_the_relays_own(
    network: Network, tmp_path: Path, binds_anywhere: bool
) -> None:
    """On whichever interface the address is, also after a redirect; other hosts of the same network are reached."""
    if binds_anywhere:
        for version in (4, 6):
            network.relay.write(f"/proc/sys/net/ipv{version}/ip_nonlocal_bind", "1")
    own = [url(host) for host in (FIRST, SECOND, THIRD, ROUTED, SIXTH, BEHIND_NAT64)]
    own += [url(VENDOR, f"/?to={url(host)}") for host in (FIRST, SIXTH)]
    others = [url(VENDOR), url(VENDOR_SIXTH), url(VENDOR, f"/?to={url(VENDOR_SIXTH)}")]
    answers = network.ingest(tmp_path, *own, *others)

    assert answers == dict.fromkeys(own, REFUSED) | dict.fromkeys(others, STORED)
    assert network.asked_of_canary() == []


def test_recording_is_refused_if_the_relay_is_known_by_its_address(network: Network, tmp_path: Path) -> None:
    """Behind a NAT no interface has the address that PUBLIC_URL leads to."""
    answers = network.ingest(tmp_path, url(KNOWN_AS), url(VENDOR), public_url=f"https://{KNOWN_AS}")

    assert answers == {url(KNOWN_AS): REFUSED, url(VENDOR): STORED}


def test_recording_is_fetched_from_the_relays_own_host_if_a_setting_allows_it(network: Network, tmp_path: Path) -> None:
    """For whoever keeps recordings on the same host, on purpose."""
    allowed = f"{FIRST}/32,{KNOWN_AS}/32"
    answers = network.ingest(
        tmp_path,
        url(FIRST),
        url(SECOND),
        url(KNOWN_AS),
        download_allowed_networks=allowed,
        public_url=f"https://{KNOWN_AS}",
    )

    assert answers == {url(FIRST): STORED, url(SECOND): REFUSED, url(KNOWN_AS): STORED}
