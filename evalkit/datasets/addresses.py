"""Which network addresses a download may connect to: public ones, unless others are allowed on purpose."""

import ipaddress
from collections.abc import Collection

_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is given out; is_global lets more through
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class PrivateAddress(OSError):
    """A connection was about to go to an address that is not public. The message names it."""


def check_address(host: str, port: int, allow_private: bool | Collection[str]) -> None:
    """Raise PrivateAddress for an address that no public web server has.

    host:          a literal IPv4 or IPv6 address, as a socket is about to connect to it.
    allow_private: True allows all; a collection allows the "host:port" in it alone.
    """
    if allow_private is True or (allow_private and f"{host}:{port}" in allow_private):
        return
    if not is_public(host):
        raise PrivateAddress(f"{host} is not a public address")


def is_public(host: str) -> bool:
    """Whether an address is globally reachable unicast, as are the IPv4 addresses that IPv6 ones embed.

    A link-local zone (fe80::1%eth0) is no part of the address.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address not in _UNICAST and address not in _NAT64:
            return False  # fec0::/10 of a site, ::/96 around an IPv4 address
        return all(embedded.is_global and not embedded.is_multicast for embedded in _embedded(address))
    return True


def _embedded(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [embedded for embedded in found if embedded is not None]
