"""Which addresses lead back to this host."""

import socket
from ipaddress import ip_address

import pytest

from providers.own_addresses import leads_here


@pytest.mark.parametrize("way", ["routing table", "binding"])
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("192.0.2.1", False),
        ("203.0.113.7", False),
        ("2001:db8::1", False),
    ],
)
def test_address_leads_here_if_this_host_holds_it(
    address: str, expected: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the routing table cannot be read."""
    if way == "binding":
        monkeypatch.delattr(socket, "AF_NETLINK")

    assert leads_here(ip_address(address)) is expected
