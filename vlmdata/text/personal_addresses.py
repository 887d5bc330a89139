"""Finds mail and IP addresses in a text, and excludes file names, versions and section numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from vlmdata.text.words import UNSPACED

Span = tuple[int, int]

_AT = r"(?:\s?[(\[{<]at[)\]}>]\s?|@| @ )"
_DOT = r"(?:\.|\s?[(\[{<]dot[)\]}>]\s?)"
_LOCAL = (  # the name before the @; an ASCII word ends where a script without spaces starts
    r"(?:(?<![A-Za-z0-9_.+-])(?:mailto:)?[A-Za-z0-9_][A-Za-z0-9_.+'-]{0,63}"
    rf"|(?<![\w.+-])(?:(?![{UNSPACED}])[\w.+'-]){{1,64}}|[{UNSPACED}]{{1,20}})"
)
_TOP = r"(?:xn--[a-z0-9-]{2,59}|[a-z]{2,24}(?![A-Za-z0-9_-])|[^\W\da-zA-Z_]{2,24})"
_MAIL = re.compile(rf"{_LOCAL}(?P<at>{_AT})(?P<domain>(?:[\w-]{{1,63}}{_DOT}){{1,5}}(?P<top>{_TOP}))", re.IGNORECASE)
_HAS_AT = re.compile(r"@|[(\[{<]at[)\]}>]", re.IGNORECASE)
_FILES = (  # file extensions that are not domains of countries
    "png jpg jpeg jpe jfif gif webp avif heic heif bmp tif tiff svg svgz ico psd psb eps raw dng xcf pdf "
    "mp3 mp4 mov webm mkv avi wav ogg flac css scss less js mjs json xml yaml yml html htm xhtml php asp aspx jsp "
    "txt csv tsv doc docx xls xlsx ppt pptx zip rar tar gz tgz exe dll apk ipa dmg iso bin dat bak tmp log ttf otf woff"
)
_ENDINGS = frozenset(_FILES.split())
_VERSION = re.compile(r"v?\d+\.\d")
_CONTACT_WORD = re.compile(r"(?:mails?|contact|contacto|kontakt|courriel|correo|write to|почта)\W{0,4}$", re.IGNORECASE)

_IP4 = re.compile(r"(?<![\w.])(?P<ip>\d{1,3}(?:\.\d{1,3}){3})(?![\w]|\.\d)(?P<port>:\d{2,5}\b|/\d{1,2}\b)?")
_IP6 = re.compile(
    r"(?<![\w:.])(?P<ip>(?:[0-9a-f]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{1,4})?)(?:%\w+)?(?![\w:]|\.\d)",
    re.IGNORECASE,
)
_NETWORK_WORD = re.compile(
    r"(?<![A-Za-z0-9_])(?:ips?|ipv4|address|addr|adresse|servers?|hosts?|dns|ping|traceroute|tracert|routers?|gateway|subnet|"
    r"netmask|proxy|lan|wan|vpn|ssh|telnet|s?ftp|https?|login|nmap|whois)(?![A-Za-z0-9_])|сервер|服务器|伺服器|サーバ|서버|خادم",
    re.IGNORECASE,
)
_VERSION_WORD = re.compile(
    r"(?<![^\W_])(?:version|versión|versão|versione|wersja|verze|sürüm|версия|версія|έκδοση|ver|v|вер|rev|revision|release|build|"
    r"firmware|driver|update|patch|apk|sdk|os|ios|android|windows|linux|kernel|player|chrome|firefox|opera|java|oid|"
    r"section|sect|sec|sección|seção|sezione|sectie|abschnitt|sekcja|rozdział|раздел|розділ|пункт|п|"
    r"chapter|chapitre|capítulo|capitolo|kapitel|hoofdstuk|глава|clause|article|artículo|artigo|articolo|artikel|статья|ст|"
    r"paragraph|paragraphe|rule|figure|fig|abb|рис|рисунок|图|圖|table|tableau|tabla|tabelle|step|no|nr|№)[\s.:#-]{0,3}$"
    r"|§\s?$|(?:第|版|版本|バージョン|버전|제|إصدار|الإصدار|نسخه|संस्करण|phiên bản|เวอร์ชัน)[\s:]{0,2}$",
    re.IGNORECASE,
)
_DOI = re.compile(r"\b10\.\d{4,9}/\S*$")  # https://www.crossref.org/blog/dois-and-matching-regular-expressions/
AROUND = 30  # characters on each side of a number that are searched for words
LOWEST = 24  # smallest first number of an address without a network word near it; a smaller number may begin a version


def find_mails(text: str) -> Iterator[Span]:
    """Yield the spans (start, end) of mail addresses, including "jane (at) example (dot) org".

    An address with spaces around its @ must follow a word such as "contact", so "dinner @ cafe.roma" does not count.
    """
    for match in _MAIL.finditer(text) if _HAS_AT.search(text) else ():
        is_file = match["top"].lower() in _ENDINGS or _VERSION.match(match["domain"])
        is_place = match["at"] == " @ " and not _CONTACT_WORD.search(text, max(0, match.start() - AROUND), match.start())
        if not is_file and not is_place:
            yield match.span()


def find_ips(text: str) -> Iterator[Span]:
    """Yield the spans (start, end) of IPv4 and IPv6 addresses.

    Four numbers with dots may also be a version. They count as an address if a port or a network mask follows, if a word such
    as "server" is near, or if they are too large for a version and no word such as "version" precedes them. A word such as
    "server" is ignored in "server version 10.0.19.1", where the first number is small.
    """
    for match in _IP4.finditer(text) if text.count(".") > 2 else ():
        if _DOI.search(text, max(0, match.start() - AROUND), match.start()):
            continue
        if _parsed(IPv4Address, match["ip"]) and (match["port"] or _is_address(text, *match.span("ip"))):
            yield match.span("ip")
    for match in _IP6.finditer(text) if text.count(":") > 1 else ():
        address = _parsed(IPv6Address, match["ip"])
        if isinstance(address, IPv6Address) and (address.ipv4_mapped or not address.is_reserved):  # a ratio, 16::9, is reserved
            yield match.span()


def _is_address(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - AROUND) : start]
    numbers = list(map(int, text[start:end].split(".")))
    is_version = _VERSION_WORD.search(before) is not None
    if is_version and numbers[0] < LOWEST:  # such as "server version 10.0.19.1"
        return False
    if _NETWORK_WORD.search(before) or _NETWORK_WORD.search(text[end : end + AROUND]):
        return True
    return not is_version and numbers[0] >= LOWEST and max(numbers) >= 100


def _parsed(kind: type[IPv4Address] | type[IPv6Address], text: str) -> IPv4Address | IPv6Address | None:
    try:
        return kind(text)
    except AddressValueError:
        return None
