"""Host names that are not ASCII become what the package idna makes of them."""

import random
import unicodedata

import idna
import pytest

from vlmdata.web.host_names import ascii_host

ALPHABETS = (
    "abcü.-éßñ",
    "日本語の・カタa1.-",
    "مثالابج١۱1a.",
    "עבג״׳a1.",
    "क्षत\u200d\u200cि.a",
    "αβγς͵.aΣ",
    "l·àL.",
    "ＡＢ１．ｘ",
)
# idna makes letters of characters that are invisible or newer than Python's tables; such names are refused here
REFUSED = {"Cf", "Cn"}
FILLERS = {0x115F, 0x1160, 0x3164, 0xFFA0, 0x17B4, 0x17B5}


def by_idna(host: str) -> str | None:
    try:
        return idna.encode(host, uts46=True).decode().lower()
    except idna.IDNAError:
        return None


@pytest.mark.parametrize("start", [0, 3])
def test_every_seventh_character_is_accepted_as_idna_accepts_it(start: int) -> None:
    codes = [code for code in range(0xA0 + start, 0x20000, 7) if not 0xD800 <= code < 0xE000 and code not in FILLERS]
    hosts = [f"ab{chr(code)}c.example" for code in codes if unicodedata.category(chr(code)) not in (*REFUSED, "Co")]
    assert {host: ascii_host(host) for host in hosts} == {host: by_idna(host) for host in hosts}


def test_random_names_of_many_scripts_become_the_same() -> None:
    draw = random.Random(1)
    hosts = ["".join(draw.choices(draw.choice(ALPHABETS), k=draw.randint(1, 9))) for _ in range(4000)]
    hosts = [host for host in hosts if not host.isascii()]
    assert {host: ascii_host(host) for host in hosts} == {host: by_idna(host) for host in hosts}


@pytest.mark.parametrize(
    "host",
    [
        *("ü@b.com", "ü:80", "ü/x", "ü%41.com", "ü b.com", "ü?.com", "ü#.com", "ü\\x", "[ü]", "ü_x.com", "☃.net", "a\u200db.ü"),
        *("-ü.com", "ü-.com", "ab--ü.com", "ü..com", ".ü.com", "ü.com..", f"{'ü' * 64}.com", f"ü.{'a' * 64}", "\u0301a.ü"),
        *("xn--zzzz.ü", "xn--a.ü", "xn--.ü", "xn---.ü", "⒈ü.com", "ü\u2028.com", "日・a.b・ü"),
    ],
)
def test_a_name_that_no_registry_allows_is_refused(host: str) -> None:
    assert ascii_host(host) is None
