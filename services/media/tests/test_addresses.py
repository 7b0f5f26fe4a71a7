"""Which addresses may be fetched from: every line of the registries, on each Python the same."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.files.addresses import Reach, reach

# https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, and what they don't name.
PUBLIC = """
1.1.1.1  8.8.8.8  93.184.216.34  100.63.255.255  100.128.0.0  126.255.255.255  128.0.0.0  168.63.129.15  168.63.129.17
169.253.255.255  169.255.0.0  172.15.255.255  172.32.0.0  192.0.1.0  192.0.3.0  192.31.196.0/24  192.52.193.0/24
192.175.48.0/24  198.17.255.255  198.20.0.0  223.255.255.255
2001:200::1  2001:4860:4860::8888  2606:4700::1111  2620:4f:8000::/48  2a00:1450::1
::ffff:8.8.8.8  64:ff9b::808:808  2002:808:808::1
"""
PRIVATE = """
10.0.0.0/8  100.64.0.0/10  172.16.0.0/12  192.0.2.0/24  192.168.0.0/16  198.18.0.0/15  198.51.100.0/24  203.0.113.0/24
64:ff9b:1::/48  2001:db8::/32  3fff::/20  fc00::/8  fd00::1  fd00:ec1::1  fec0::/10
::ffff:10.0.0.0/104  ::ffff:192.168.0.1  64:ff9b::a00:1  64:ff9b::c0a8:1  2002:a00:1::1  2002:c0a8:1::/48
"""
LOOPBACK = "127.0.0.0/8  ::1/128  ::ffff:127.0.0.0/104"
NEVER = """
0.0.0.0/8  100.100.100.200  168.63.129.16  169.254.0.0/16  169.254.169.254  192.0.0.0/24  192.0.0.0/29  192.0.0.8
192.0.0.9  192.0.0.10  192.0.0.170  192.0.0.171  192.0.0.192  192.88.99.0/24  224.0.0.0/4  240.0.0.0/4  255.255.255.255
::  ::/128  ::2  ::7f00:1  ::a00:1  ::ffff:0:7f00:1  100::/64  100:0:0:1::/64  200::1  400::1  1fff::1
2001::/32  2001:1::1  2001:1::2  2001:1::3  2001:2::/48  2001:3::/32  2001:4:112::/48  2001:10::/28  2001:20::/28
2001:30::/28  4000::1  5f00::/16  fd00:ec2::254  fd20:ce::254  fe00::1  fe80::/10  ff00::/8
::ffff:168.63.129.16  ::ffff:169.254.169.254  ::ffff:192.0.0.192  ::ffff:0.0.0.0  ::ffff:224.0.0.1
64:ff9b::a83f:8110  64:ff9b::a9fe:a9fe  64:ff9b::7f00:1  64:ff9b::c000:c0  64:ff9b:0:0:1::  64:ff9b:2::1
2002:a83f:8110::1  2002:a9fe:a9fe::1  2002:7f00:1::1  2002:c000:c0::1  2002:e000:1::1
"""
TABLE = [
    (entry, expected)
    for entries, expected in (
        (PUBLIC, Reach.PUBLIC), (PRIVATE, Reach.PRIVATE), (LOOPBACK, Reach.LOOPBACK), (NEVER, Reach.NEVER)
    )
    for entry in entries.split()
]  # fmt: skip


@pytest.mark.parametrize(("entry", "expected"), TABLE)
def test_each_network_of_the_registries_lies_where_it_is_listed(entry: str, expected: Reach) -> None:
    network = ip_network(entry)

    assert {reach(network[0]), reach(network[-1])} == {expected}


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_cannot_hide_in_an_ipv6_one(address: object) -> None:
    inner = ip_address(str(address))
    number = int(inner)
    forms = [ip_address((0xFFFF << 32) | number), ip_address((0x64FF9B << 96) | number)]
    forms.append(ip_address((0x2002 << 112) | (number << 80) | 1))

    mapped, *translated = [reach(form) for form in forms]

    assert mapped is reach(inner)
    assert set(translated) == {Reach.NEVER if mapped is Reach.LOOPBACK else mapped}


@given(st.ip_addresses(v=6))
def test_nothing_in_the_upper_half_is_public(address: object) -> None:
    assert reach(ip_address(int(ip_address(str(address))) | 1 << 127)) is not Reach.PUBLIC
