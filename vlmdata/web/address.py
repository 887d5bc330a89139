"""Decides which network addresses are public, to keep untrusted URLs away from the machine's own network.

The check is stricter than `ipaddress.is_global`, whose answer changes between Python versions. The tables below are the IANA
registries of special-purpose addresses. All addresses of deprecated tunnels are refused, because such an address can contain
a private IPv4 address that the check would not find.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# source: IANA IPv4 Special-Purpose Address Registry; 224/4 and 240/4 from the IPv4 address space registry
_V4_REFUSED = tuple(
    (int(network.network_address), int(network.netmask))
    for network in map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
            "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # public, but within Azure it is the address of the host machine's control service
        ),
    )
)  # fmt: skip

_V6_PUBLIC = IPv6Network("2000::/3")  # all of IANA's global unicast space
# source: IANA IPv6 Special-Purpose Address Registry, its entries inside 2000::/3
_V6_REFUSED = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",      # protocol assignments: Teredo, benchmarking, ORCHID
            "2001:db8::/32",  # reserved for documentation
            "2002::/16",      # 6to4, deprecated by RFC 7526; bits 16 to 48 are an IPv4 address
            "3fff::/20",      # reserved for documentation
        ),
    )
)  # fmt: skip
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")  # DNS64's answers on an IPv6-only network; the last 32 bits are an IPv4 address
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})  # interface identifiers of RFC 5214; an IPv4 address follows


def is_public(address: str) -> bool:
    """Return whether a literal IPv4 or IPv6 address is public. An address with a zone (`fe80::1%eth0`) is never public.

    Raise ValueError if `address` is not a literal address.
    """
    if "%" in address:
        return False
    parsed = ip_address(address)
    return _is_public_v4(parsed) if isinstance(parsed, IPv4Address) else _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    number = int(address)
    return all(number & mask != network for network, mask in _V4_REFUSED)


def _is_public_v6(address: IPv6Address) -> bool:
    inner = IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _MAPPED or address in _NAT64:
        return _is_public_v4(inner)
    if address not in _V6_PUBLIC or any(address in network for network in _V6_REFUSED):
        return False
    return (int(address) >> 32) & 0xFFFFFFFF not in _ISATAP or _is_public_v4(inner)
