"""Maps img2dataset's error messages to reasons for the ledger."""

import re

_SIGNS = {
    "timed out": "timeout",
    "name or service not known": "no_such_host",
    "no address associated": "no_such_host",
    "nodename nor servname": "no_such_host",
    "certificate": "tls",
    "ssl": "tls",
    "connection refused": "connection_refused",
    "connection reset": "connection_reset",
    "unknown url type": "not_http",
}


def reason_of(status: str | None, message: str | None) -> str:
    """Return the ledger's reason for an error of img2dataset, such as `http_404`, `timeout` or `no_such_host`.

    For an unknown message, the reason is the message in lower case with underscores. Without a message, the reason is
    img2dataset's status.
    """
    if not message:
        return status or "unknown"
    code = re.search(r"HTTP Error (\d{3})", message)
    if code:
        return f"http_{code[1]}"
    for sign, word in _SIGNS.items():
        if sign in message.lower():
            return word
    return re.sub(r"[^a-z]+", "_", message.lower()).strip("_")[:60] or status or "unknown"
