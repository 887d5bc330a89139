"""Names of the failures of a fetch, and which of them are temporary.

The ledger stores these names, so they must not change. An HTTP status that is not a success is named `http_NNN`.
"""

# temporary failures: a later attempt may succeed
PASSING = frozenset({
    "timeout",             # not complete within timeout_s
    "connect_timeout",     # no connection within connect_timeout_s
    "connect_failed",      # nothing listens, or no route
    "dns_timeout",         # no answer from the resolver
    "dns_temporary",       # the resolver asks to try again
    "reset",               # the connection ended without a complete answer
    "truncated_body",      # fewer bytes than the header promised
    "host_busy",           # waited max_wait_s for a host that made no progress
    "robots_unreachable",  # robots.txt answered 5xx or not at all, so nothing may be fetched yet
    "proxy_failed",        # the proxy named in the recipe does not answer
    "closed",              # the client stopped first; not an outcome to commit
})  # fmt: skip

# failures that another attempt does not change
FINAL = frozenset({
    "bad_url",             # not a valid http(s) address
    "blocked",             # on the recipe's block list
    "private_address",     # resolves to an address that is not public
    "dns_failed",          # no such name
    "tls_failed",          # no trusted certificate, or no common protocol
    "too_large",           # more than max_bytes, as sent or after decompression
    "headers_too_large",   # more than max_header_bytes of header
    "too_many_redirects",
    "bad_redirect",        # a redirect without a valid http(s) address
    "bad_encoding",        # the body is not compressed as the header says
    "bad_response",        # not HTTP
    "empty_body",          # a success without a body
    "robots",              # robots.txt disallows it
    "noai",                # X-Robots-Tag: noai, noimageai or noml
    "noindex",             # X-Robots-Tag: noindex, noimageindex or none
    "opted_out",           # X-Robots-Tag, if the engine (img2dataset) does not report the directive
    "wrong_sha256",        # the bytes do not match the source's hash
    "wrong_md5",
    "no_hash",             # the recipe verifies hashes, but the source has no hash for this image
    "no_address",          # the source has no address for this image
    "tdm_reserved",        # text and data mining is reserved (TDMRep)
})  # fmt: skip

REFUSALS = frozenset({"noai", "noindex", "tdm_reserved"})  # a site refuses one address; the run sends no further request for it

# Request Timeout, Too Early, Too Many Requests; also 5xx, except 501, 505 and 511, which waiting does not change
_PASSING_STATUS = frozenset({408, 425, 429})
_FINAL_5XX = frozenset({501, 505, 511})


def is_passing(failure: str) -> bool:
    """Return whether a failure is temporary. An unknown name is a bug and raises AssertionError."""
    if failure in PASSING:
        return True
    if failure in FINAL:
        return False
    kind, _, number = failure.partition("_")
    assert kind == "http" and number.isdigit(), f"unknown outcome {failure!r}"
    status = int(number)
    return status in _PASSING_STATUS or (500 <= status < 600 and status not in _FINAL_5XX)
