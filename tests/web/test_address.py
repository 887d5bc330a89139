"""The check for public addresses agrees with `ipaddress`, and is stricter where a tunnel carries another address."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vlmdata.web.address import is_public

PRIVATE_V4 = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.31.255.255",
    "192.168.1.1",
    "192.0.0.192",
    "198.19.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
]


def inside_v6(address: str) -> list[str]:
    """Return an IPv4 address in every form in which IPv6 carries one."""
    v4 = int(ipaddress.IPv4Address(address))
    forms = [
        0xFFFF << 32 | v4,  # mapped
        v4,  # compatible
        0x2002 << 112 | v4 << 80 | 1,  # 6to4
        0x0064_FF9B << 96 | v4,  # NAT64
        0x0064_FF9B_0001 << 80 | v4,  # NAT64, local use
        0x2001_0000 << 96 | v4 << 64 | 0x1234,  # Teredo, its server
        0x2001_0000 << 96 | 0x0808_0808 << 64 | (v4 ^ 0xFFFFFFFF),  # Teredo, its client
        0x2A00_1450_4001_0800 << 64 | 0x0000_5EFE << 32 | v4,  # ISATAP
        0x2A00_1450_4001_0800 << 64 | 0x0200_5EFE << 32 | v4,
    ]
    return [str(ipaddress.IPv6Address(form)) for form in forms]


@given(st.ip_addresses(v=4).map(str))
@example("1.1.1.1")
def test_v4_agrees_with_ipaddress_except_three_networks(address: str) -> None:
    parsed = ipaddress.IPv4Address(address)
    refused_by_us = any(parsed in ipaddress.IPv4Network(net) for net in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32"))
    is_open = parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
    assert is_public(address) == (is_open and not refused_by_us)


@given(st.ip_addresses(v=6) | st.integers(0, 2**125).map(lambda low: ipaddress.IPv6Address(0x2 << 124 | low)))
def test_v6_is_at_least_as_strict_as_ipaddress(address: ipaddress.IPv6Address) -> None:
    if is_public(str(address)):
        assert address.ipv4_mapped is not None or address.is_global
        assert not address.is_multicast and not address.is_link_local and not address.is_site_local
        assert address.sixtofour is None and address.teredo is None


@given(st.sampled_from(PRIVATE_V4) | st.ip_addresses(v=4).map(str).filter(lambda address: not is_public(address)))
def test_no_form_of_ipv6_carries_a_private_ipv4_address(address: str) -> None:
    assert [form for form in inside_v6(address) if is_public(form)] == []


@pytest.mark.parametrize(
    "address",
    [
        *PRIVATE_V4,
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "4000::1",
    ],
)
def test_private_addresses_are_recognized(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "172.32.0.1",
        "100.128.0.1",
        "2606:4700::1111",
        "2a00:1450:4001:800::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_public_addresses_are_recognized(address: str) -> None:
    assert is_public(address)
