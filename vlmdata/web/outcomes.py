"""Names of the failures of a fetch, what they mean, and which parameters of `download` they depend on.

The ledger stores these names, so they must not change. An HTTP status that is not a success is named `http_NNN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple


class Failure(NamedTuple):
    """What a failure means, and the parameters of `download` that may turn it into a success.

    A parameter with a `+` helps if its value grows or gets more entries, and one with a `-` if its value shrinks, loses entries
    or is switched off. Any other change of a parameter without a sign may help.
    """

    meaning: str
    settings: tuple[str, ...] = ()


_WAIT = ("+max_wait_s", "host_connections", "host_requests_per_s", "host_rates")

# temporary failures: a later attempt may succeed
PASSING = {
    "timeout": Failure("not complete within timeout_s", ("+timeout_s",)),
    "connect_timeout": Failure("no connection within connect_timeout_s", ("+connect_timeout_s",)),
    "connect_failed": Failure("nothing listens, or no route", ("proxy",)),
    "dns_timeout": Failure("no answer from the resolver", ("+connect_timeout_s", "proxy")),
    "dns_temporary": Failure("the resolver asks to try again", ("proxy",)),
    "reset": Failure("the connection ended without a complete answer"),
    "truncated_body": Failure("fewer bytes than the header promised"),
    "host_busy": Failure("waited max_wait_s for a host that made no progress", _WAIT),
    "robots_unreachable": Failure("robots.txt answered 5xx or not at all, so nothing may be fetched yet", ("-robots",)),
    "proxy_failed": Failure("the proxy named in the recipe does not answer", ("proxy",)),
    "closed": Failure("the client stopped first"),  # not an outcome to commit
}

# failures that another attempt with the same settings does not change
FINAL = {
    "bad_url": Failure("not a valid http(s) address"),
    "blocked": Failure("on the recipe's block list", ("-blocked_domains", "-blocked_urls", "block_files")),
    "private_address": Failure("the host has no public address", ("+allowed_hosts", "proxy")),
    "dns_failed": Failure("there is no such host", ("proxy",)),
    "tls_failed": Failure("no trusted certificate, or no common protocol", ("ca_file",)),
    "too_large": Failure("more than max_bytes, as sent or after decompression", ("+max_bytes",)),
    "headers_too_large": Failure("more than max_header_bytes of header", ("+max_header_bytes",)),
    "too_many_redirects": Failure("more than max_redirects", ("+max_redirects",)),
    "bad_redirect": Failure("a redirect without a valid http(s) address"),
    "bad_encoding": Failure("the body is not compressed as the header says"),
    "bad_response": Failure("the answer is not HTTP"),
    "empty_body": Failure("a success without a body"),
    "robots": Failure("robots.txt of the site disallows it", ("-robots", "agent")),
    "noai": Failure("the site refuses use for AI (X-Robots-Tag: noai, noimageai or noml)", ("-opt_out", "agent")),
    "noindex": Failure("the site refuses copies (X-Robots-Tag: noindex, noimageindex or none)", ("-opt_out", "agent")),
    "opted_out": Failure("the site refuses it (X-Robots-Tag)", ("-opt_out", "agent")),  # img2dataset names no directive
    "wrong_sha256": Failure("the bytes do not match the source's hash", ("verify",)),
    "wrong_md5": Failure("the bytes do not match the source's hash", ("verify",)),
    "no_hash": Failure("verify is set, but the source has no hash for this image", ("verify",)),
    "no_address": Failure("the source has no address for this image"),
    "tdm_reserved": Failure("the site reserves text and data mining (TDMRep)", ("-tdm", "-tdm_file")),
}

REFUSALS = frozenset({"noai", "noindex", "tdm_reserved"})  # a site refuses one address; the run sends no further request for it

# Request Timeout, Too Early, Too Many Requests; also 5xx, except 501, 505 and 511, which waiting does not change
PASSING_STATUS = frozenset({408, 425, 429})
FINAL_5XX = frozenset({501, 505, 511})
# Answers that may depend on who asks: Unauthorized, Forbidden, Not Acceptable, Too Many Requests, Unavailable For Legal Reasons
_PERSONAL_STATUS = frozenset({401, 403, 406, 429, 451})


def is_passing(failure: str) -> bool:
    """Return whether a failure is temporary. An unknown name is a bug and raises AssertionError."""
    if failure in PASSING:
        return True
    if failure in FINAL:
        return False
    status = _status(failure)
    return status in PASSING_STATUS or (500 <= status < 600 and status not in FINAL_5XX)


def is_fetch_failure(reason: str) -> bool:
    """Return whether a reason of the step `download` names a failed fetch, and not an image that cannot be decoded."""
    return reason in PASSING or reason in FINAL or (reason.startswith("http_") and reason[5:].isdigit())


def described(failure: str) -> Failure:
    """Return the meaning and the settings of a failure. An unknown name is a bug and raises AssertionError."""
    if known := PASSING.get(failure) or FINAL.get(failure):
        return known
    status = _status(failure)
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "an unknown status"
    return Failure(f"the server answered {status} ({phrase})", ("contact", "agent") if status in _PERSONAL_STATUS else ())


def _status(failure: str) -> int:
    kind, _, number = failure.partition("_")
    assert kind == "http" and number.isdigit(), f"unknown outcome {failure!r}"
    return int(number)


def changed_settings(failure: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the parameters of `download` whose change from `before` to `now` may turn this failure into a success.

    Parameters that one of the two lacks are taken as unchanged.
    """
    names = [(setting.lstrip("+-"), setting[0]) for setting in described(failure).settings]
    return [name for name, sign in names if name in before and name in now and _helps(sign, before[name], now[name])]


def _helps(sign: str, before: Any, now: Any) -> bool:
    if sign not in "+-":
        return bool(before != now)
    less, more = (before, now) if sign == "+" else (now, before)
    if isinstance(less, list | tuple):
        return not set(more) <= set(less)
    return bool(less < more)
