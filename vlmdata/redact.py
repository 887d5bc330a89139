"""Taking passwords, keys and signatures out of what others may read: manifests, cards, reports, ledgers, logs, errors.

An address holds them before the host (`https://user:password@…`, `s3://KEY:SECRET@…`) and in parameters that sign it or
let somebody in (`X-Amz-Signature`, `sig`, `token`). What is left still says which place was meant.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

MARK = "REDACTED"

# Parts of names, in lower case without - _ and dots: AWS, Google and Azure sign with these, interfaces of all kinds take keys.
_TELLING = re.compile(
    "signature|token(?!i)|secret|passw|credential|apikey|accesskey|privatekey|authkey|authorization|bearer|cookie"
    "|sessionid|keypairid|googleaccessid"
)
_FIELD = re.compile(
    "secret|passw|credential|apikey|accesskey|privatekey|authorization|^token$|(access|auth|api|hf|bearer)token$"
)
_SHORT = re.compile("sig|sign|pwd|pass|auth|key|jwt|hmac|hm|oh|session|sid|policy|hdnea|hdnts|rlkey|resourcekey|qak")

# Every repetition is bounded: the texts are strangers'.
_INSIDE = r"[^\s\"'<>?#@]"
_USERS = (
    re.compile(r"(?P<before>://)[^\s\"'<>?#/]{0,2000}@"),
    # A secret may hold a slash where it stands as it is, as AWS's do; `host:8080/a@2x.png` is a port and a path.
    re.compile(rf"(?P<before>://)[^\s\"'<>?#@/:]{{1,200}}:(?!:|\d{{0,5}}(?:[/?#\s]|$)){_INSIDE}{{1,2000}}@"),
    re.compile(rf"(?i)(?P<before>\bs3a?://)[^\s\"'<>?#@/:]{{1,200}}:{_INSIDE}{{1,2000}}@"),
)
_ENCODED_USER = re.compile(r"(?i)(?P<before>%3a%2f%2f)(?:(?!%40|%2f)[^\s\"'<>?#&]){1,2000}%40")
_PARAMETER = re.compile(r"(?P<name>[?&;#][^\s\"'<>?#&;=]{1,200}=)(?P<value>[^\s\"'<>#&;]*[^\s\"'<>#&;,.:)\]])")
_ENCODED_PARAMETER = re.compile(r"(?i)(?P<name>(?:%3f|%26)[\w.-]{1,200}%3d)(?P<value>(?:(?!%26)[^\s\"'<>#&;])+)")


def redacted(text: str) -> str:
    """Return a text in which every address has lost its user, its password, and the values of what signs it."""
    for pattern in _USERS:
        text = pattern.sub(rf"\g<before>{MARK}@", text)
    text = _ENCODED_USER.sub(rf"\g<before>{MARK}%40", text)
    for pattern in (_PARAMETER, _ENCODED_PARAMETER):
        text = pattern.sub(lambda match: match["name"] + (MARK if is_secret(match["name"]) else match["value"]), text)
    return text


def redacted_tree(value: Any) -> Any:
    """Return plain JSON values with every text redacted, and gone where its field is called `password` or the like."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {
            name: MARK if isinstance(one, str) and one and _FIELD.search(_plain(name)) else redacted_tree(one)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted_tree(one) for one in value]
    return value


def redacted_column(column: pa.Array) -> pa.Array:
    """Return a column of texts with each one redacted; most hold nothing of the kind and are not looked at one by one."""
    suspect = pc.fill_null(pc.match_substring_regex(column, "@|=|%40|%3[dD]"), False)
    if not pc.any(suspect).as_py():
        return column
    done = pa.array([redacted(text) for text in column.filter(suspect).to_pylist()], pa.string())
    return pc.replace_with_mask(column, suspect, done)


def is_secret(name: str) -> bool:
    """Say whether a parameter of this name signs an address or lets somebody in."""
    plain = _plain(name.lower().removeprefix("%26").removeprefix("%3f").removesuffix("%3d"))
    return _SHORT.fullmatch(plain) is not None or _TELLING.search(plain) is not None


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", unquote(str(name)).lower())
