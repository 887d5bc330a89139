"""Removes passwords, keys and signatures from manifests, cards, reports, ledgers, logs and errors, which others may read.

An address holds secrets before the host (`https://user:password@…`, `s3://KEY:SECRET@…`) and in parameters that sign it or
grant access (`X-Amz-Signature`, `sig`, `token`). The rest of the address stays.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

MARK = "REDACTED"

# Patterns for names of parameters, in lower case without - _ and dots: signatures of AWS, Google and Azure, and API keys.
_TELLING = re.compile(
    "signature|token(?!i)|secret|passw|passphrase|credential|authorization|bearer|cookie|sessid|sessionid|keypairid"
    "|googleaccessid|connectionstring|oauth|(key|sig|auth)$"
)
_FIELD = re.compile(
    "secret|passw|passphrase|credential|(api|access|account|private|license)key$|authorization|connectionstring|^pwd$|^token$"
    "|(access|auth|api|hf|bearer|sas|session)token$"
)
_SHORT = re.compile(
    "sig[0-9]|sign|signed|cfsign|pwd|pass|jwt|hmac|hm|oh|session|sid|sas|policy|hdnea|hdnts|hdntl|ticket|otp|qak|authz"
)

# Every repetition is bounded, because the texts are untrusted.
_USERS = (
    re.compile(r"(?P<before>(?<![\w/%.-])//)[^\s\"<>?#/]{0,4000}@"),  # except a // within a path
    # An unescaped secret may contain a slash, as AWS secrets do. `host:8080/a@2x.png` has no secret, only a port and a path.
    re.compile(r"(?P<before>://)[^\s\"<>?#@/:]{1,200}:(?!:|\d{0,5}(?:[/?#\s]|$))[^\s\"<>?#@]{1,2000}@"),
    # A password with a few characters that are illegal in an address: blanks, ? # " < >. Ports and hosts in
    # brackets are not matched.
    re.compile(
        r"(?P<before>://)[^\s\"<>?#@/:\[]{1,200}:(?![:\s]|\d{0,5}(?:[/?#\s]|$))"
        r"[^\s@/]{0,200}(?:[ ?#\"<>][^\s@/]{0,200}){1,4}@(?=[\w\[])"
    ),
    # A password that begins like a port. A host name must follow the @, so that file names such as `a@2x.png` are kept.
    re.compile(
        r"(?P<before>://)[^\s\"<>?#@/:]{1,200}:\d{1,5}/[^\s\"<>?#@]{0,2000}(?<!/)@"
        r"(?=(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,20}(?::\d{1,5})?/)"
    ),
    re.compile(r"(?i)(?P<before>\bs3a?://)[^\s\"<>?#@/:]{1,200}:[^\s\"<>?#@]{1,2000}@"),
    re.compile(r"(?P<before>[\"'`])[^\s\"'`<>@/:]{1,200}:(?!/)[^\s\"'`<>@]{1,2000}@"),  # quoted, without s3://
)
_COLON, _SLASH, _AT = (f"%(?:25){{0,2}}{code}" for code in ("3a", "2f", "40"))  # percent-encoded up to three times
_ENCODED_USER = re.compile(rf"(?i)(?P<before>{_COLON}{_SLASH}{_SLASH})(?:(?!{_AT}|{_SLASH})[^\s\"<>?#&]){{1,2000}}{_AT}")
_BEARER = re.compile(
    r"(?i)(?P<before>authorization['\"]?\s{0,3}[:=]\s{0,3}['\"]?(?:bearer|basic|token)?\s{0,3})[^\s'\"]{4,4000}"
)
_NAME = re.compile(r"(?i)(?:[?&;#]|%(?:25){0,2}(?:3f|26|3b|23)|\\u0026)(?P<name>[^\s\"'<>?#&;=]{1,200}?)(?:=|%(?:25){0,2}3d)")
_VALUE = re.compile(r"(?:(?!%(?:25){0,2}26)[^\s\"<>#&'?]|'(?=[\w%])){1,4000}")  # ' within a value is a part of the value
_PLAIN_VALUE = re.compile(r"(?:[^\s\"<>#&'?]|'(?=[\w%])){1,4000}")  # an unencoded value may contain %26
_AFTER = ",.:;)]"  # punctuation that may follow an address in a sentence


def redacted(text: str) -> str:
    """Return the text with the user, the password and the secret parameters of every address replaced by "REDACTED"."""
    for pattern in _USERS:
        text = pattern.sub(rf"\g<before>{MARK}@", text)
    text = _ENCODED_USER.sub(rf"\g<before>{MARK}%40", text)
    text = _BEARER.sub(rf"\g<before>{MARK}", text)
    parts: list[str] = []
    done = 0
    for name in _NAME.finditer(text):
        if name.start() < done or not is_secret(name["name"]):
            continue
        is_plain = not name[0].startswith("%") and name[0].endswith("=")
        value = (_PLAIN_VALUE if is_plain else _VALUE).match(text, name.end())
        if value is not None and (kept := value[0].rstrip(_AFTER)):
            parts += [text[done : name.end()], MARK]
            done = name.end() + len(kept)
    return "".join([*parts, text[done:]])


def redacted_tree(value: Any) -> Any:
    """Return plain JSON values with every string redacted. "REDACTED" replaces the values of fields such as `password`."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted(str(name)): _field(str(name), one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_tree(one) for one in value]
    return value


def _field(name: str, value: Any) -> Any:
    is_open = value is None or isinstance(value, bool | dict) or value in ("", [])
    return redacted_tree(value) if is_open or not _FIELD.search(_plain(name)) else MARK


def redacted_column(column: pa.Array) -> pa.Array:
    """Return a column of strings with each string redacted. Only strings with @, = or % are processed one by one."""
    suspect = pc.fill_null(pc.match_substring_regex(column, "@|=|%"), False)
    if not pc.any(suspect).as_py():
        return column
    done = pa.array([redacted(text) for text in column.filter(suspect).to_pylist()], pa.string())
    return pc.replace_with_mask(column, suspect, done)


def is_secret(name: str) -> bool:
    """Return whether a parameter of this name signs an address or grants access."""
    plain = _plain(name)
    return _SHORT.fullmatch(plain) is not None or _TELLING.search(plain) is not None


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", unquote(str(name)).lower())
