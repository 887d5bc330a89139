"""The names of what can become of a fetch, and which of them are worth asking again.

Names are part of the ledger, so they stay as they are. Every answer of a server that is not a success is `http_NNN`.
"""

# failures of the moment: the same address may well be served an hour later
PASSING = frozenset({
    "timeout",             # not complete within timeout_s
    "connect_timeout",     # no connection within connect_timeout_s
    "connect_failed",      # nothing listens there, or no route
    "dns_timeout",         # no answer from the resolver
    "dns_temporary",       # the resolver asks to try again
    "reset",               # the connection ended without a whole answer
    "truncated_body",      # fewer bytes than the header promised
    "host_busy",           # waited max_wait_s for the turn of a host that did not get on
    "robots_unreachable",  # robots.txt answered 5xx or not at all, so nothing may be fetched for now
    "proxy_failed",        # the proxy named in the recipe does not answer
    "closed",              # the client was stopped first; not an outcome to commit
})  # fmt: skip

# failures that asking again will not change
FINAL = frozenset({
    "bad_url",             # not an http(s) address that can be asked for
    "blocked",             # on the recipe's block list
    "private_address",     # leads to an address that is not public
    "dns_failed",          # no such name
    "tls_failed",          # no certificate that can be trusted, or no common protocol
    "too_large",           # more than max_bytes, as sent or after decompression
    "headers_too_large",   # more than max_header_bytes of header
    "too_many_redirects",
    "bad_redirect",        # a redirect to nowhere, or to something that is not http(s)
    "bad_encoding",        # the body is not compressed as the header says
    "bad_response",        # not HTTP
    "empty_body",          # a success without a byte
    "robots",              # robots.txt disallows it
    "noai",                # X-Robots-Tag: noai, noimageai or noml
    "noindex",             # X-Robots-Tag: noindex, noimageindex or none
    "opted_out",           # X-Robots-Tag, where the engine (img2dataset) does not say which word
    "wrong_sha256",        # not the bytes that the source's hash is of
    "wrong_md5",
    "no_hash",             # the recipe wants every hash verified, and the source states none for this image
    "no_address",          # nor an address
    "tdm_reserved",        # text and data mining is reserved (TDMRep)
})  # fmt: skip

REFUSALS = frozenset({"noai", "noindex", "tdm_reserved"})  # the site's own word on one address: not asked again in a run

# Request Timeout, Too Early, Too Many Requests; 5xx follow. 501, 505 and 511 will not change by waiting.
_PASSING_STATUS = frozenset({408, 425, 429})
_FINAL_5XX = frozenset({501, 505, 511})


def is_passing(failure: str) -> bool:
    """Tell whether a failure is one of the moment. A name that is not ours raises: it would be a mistake of ours."""
    if failure in PASSING:
        return True
    if failure in FINAL:
        return False
    kind, _, number = failure.partition("_")
    assert kind == "http" and number.isdigit(), f"no outcome is called {failure!r}"
    status = int(number)
    return status in _PASSING_STATUS or (500 <= status < 600 and status not in _FINAL_5XX)
