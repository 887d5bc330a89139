"""Finds telephone numbers in a text, and excludes sizes, amounts, years and identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vlmdata.text.telephone_words import ANNOUNCED

_SEP = r"[ ./-]{0,2}"
_DIGIT = rf"(?:{_SEP}\(?\d\)?)"
_ANY = re.compile(
    rf"(?P<plus>(?<![\w+.])\+\s?[1-9]{_DIGIT}{{6,14}}(?!\w))"  # + and a country code
    rf"|(?P<announced>{ANNOUNCED}\+?\(?\d(?:[ ./()-]{{0,3}}\d){{6,14}}(?!\w))"
    rf"|(?P<zeros>(?<![\w.-])00[1-9]\d{{0,2}}[ ./-]\(?\d{_DIGIT}{{6,13}}(?!\w))"  # 00 and a country code
    r"|(?P<area>(?<!\w)(?:8 ?)?(?:\(0\d{1,4}\) ?\d(?:[ ./-]?\d){5,7}|\([2-9]\d\d\) ?\d{3}[ .-]?\d\d[ .-]?\d\d"
    r"|\([1-9]\d\) ?9?\d{4}-\d{4})(?!\w))"
    r"|(?P<north>(?<![\w.-])(?:1(?P<one>[ .-]))?[2-9]\d{2}(?P<by>[ .-])[2-9]\d{2}(?P=by)\d{4}(?![\w-]|\.\d))"  # US 3-3-4
    r"|(?P<pairs>(?<![\w.-])0[1-9](?P<two>[ .-])\d\d(?:(?P=two)\d\d){3}(?!\w|[ .-]\d))"  # France
    r"|(?P<trunk>(?<![\w.-])0[1-9](?:\d{1,4}[ /]\d{6,8}|\d{1,2}-\d{6,7}|\d? \d{4} \d{4}|\d\d \d{3} \d{3,4}|\d \d{3} \d\d \d\d"
    r"|\d{0,2}-\d{3,4}-\d{4})(?![\w-]|\.\d))"
    r"|(?P<china>(?<![\w.-])1[3-9]\d(?P<gap>[ -])\d{4}(?P=gap)\d{4}(?![\w-]|\.\d))",
    re.ASCII,
)
_SEVEN = re.compile(r"(?:[^0-9]*[0-9]){7}")  # few texts that contain digits contain at least seven
_IDENTIFIER_WORD = re.compile(
    r"(?:is[bsm]n(?:-1[03])?|ein|ean|upc|gtin|sku|asin|vin|imei|item|part|model|order|ref|reference|serial|patent|lot|art|article|"
    r"mls|case|invoice|catalog|cat|stock|photo|image|img|version)\W{0,3}(?:number|numbers|no|nr|num|id)?\W{0,3}$",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"(?: \d+)?\s?(?:[kmgt]b|mp|mah|ram)\b|\s?(?:[%€$]|(?:[kmµ]g|[mcd]l|[kmc]m|k?hz|kw|px|pixels?|dpi|lbs?|oz|pcs?|pieces|"
    r"tablets|points|likes?|views?|followers|subscribers|downloads|installs|users|people|sold|usd|eur|руб|шт)\b|"
    r"[元円원台部个個万萬億亿人次张張개명₽₹₫₩¥]|บาท|ریال|تومان|جنيه|रुपये)",
    re.IGNORECASE,
)
_DATE = re.compile(r"(?:19|20)\d\d[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d")
_DECIMAL = re.compile(r"\d{1,3}\.\d{4,}(?: -?\d{1,3}\.\d{4,})?")  # one decimal number, or two such as geographic coordinates
# A version: four numbers with dots between them, but not a Danish or American telephone number.
_VERSION = re.compile(r"(?!\d\d(?:\.\d\d){3}$|1(?:\.\d{3}){2}\.\d{4}$)[1-9]\d?(?:\.\d{1,5}){3}")
_SIZES_OF_MEMORY = frozenset(2**power for power in range(3, 13))
_PRICES = re.compile(r"\d{1,4}\.\d\d(?: \d{1,4}\.\d\d)+")
_AMOUNT = re.compile(r"\d{1,2}(?:\.\d{3})+")
_SIDES = (  # sides of screens, in pixels
    "240 320 360 375 384 390 393 412 414 428 430 480 540 568 600 640 667 720 736 750 768 800 812 828 844 852 854 896 900 926 "
    "932 960 1024 1050 1080 1125 1136 1152 1170 1179 1200 1242 1280 1284 1290 1334 1350 1366 1400 1440 1536 1600 1620 1668 "
    "1680 1792 1800 1920 2048 2160 2208 2220 2280 2340 2360 2388 2400 2436 2532 2556 2560 2688 2732 2778 2796 2880 2960 3000 "
    "3040 3088 3120 3168 3200 3840 4096 4320 5120 7680"
)
SIDES = frozenset(map(int, _SIDES.split()))


def find_telephones(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans (start, end) of telephone numbers, including a word such as "call" before them.

    A telephone number follows +, 00 or such a word, or has a form that is common in North America, Europe or East Asia. It
    has 7 to 15 digits (ITU E.164).
    """
    for match in _ANY.finditer(text) if _SEVEN.match(text) else ():
        number = re.search(r"[+(]*\d.*", match[0])
        assert number is not None
        digits = re.sub(r"\D", "", match[0])
        if not 7 <= len(digits) <= 15 or is_another_number(number[0]) or _UNIT.match(text, match.end()):
            continue
        if match["plus"] and not _is_international(number[0], digits):
            continue
        if not match["announced"] and _IDENTIFIER_WORD.search(text, max(0, match.start() - 30), match.start()):
            continue
        yield match.span()


def is_another_number(number: str) -> bool:
    """Return whether a number is not a telephone number but years, a screen size, a date, a decimal, a list or amounts."""
    groups = re.findall(r"\d+", number)
    values = list(map(int, groups))
    if _DATE.match(number) or _DECIMAL.fullmatch(number) or _AMOUNT.fullmatch(number) or _PRICES.fullmatch(number):
        return True
    if all(len(group) == 4 and 1900 <= value < 2100 for group, value in zip(groups, values, strict=True)):
        return True
    if _VERSION.fullmatch(number) or (len(groups) > 1 and _SIZES_OF_MEMORY.issuperset(values)):
        return True
    if len(groups) in (2, 4) and SIDES.issuperset(values):
        return True
    if len(groups) == 1:
        return number.endswith("00000")
    is_list = values == list(range(values[0], values[0] + len(values)))
    is_round = all(value % 50 == 0 and group[0] != "0" for group, value in zip(groups, values, strict=True))
    is_rising = values[0] < 10 and groups[0] != f"0{values[0]}" and max(values) < 100 and values == sorted(values)
    return len(groups) > 2 and (is_list or is_round or is_rising or max(map(len, groups)) == 1)


def _is_international(number: str, digits: str) -> bool:
    """Return whether a number with a leading `+` is a telephone number.

    A telephone number has at least 8 digits, or 11 if its country code is 1 or 7. It is not a decimal or an amount.
    """
    zeros = len(digits) - len(digits.rstrip("0"))
    is_amount = zeros >= (4 if number[1:].isdigit() else 6)
    if len(digits) < 8 or is_amount or _DECIMAL.fullmatch(number[1:]):
        return False
    if digits[0] == "1":
        return len(digits) == 11 and digits[1] in "23456789"
    return digits[0] != "7" or len(digits) == 11
