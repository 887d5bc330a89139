"""Names of the failures of answers, what they mean, and which of them are temporary.

Stored answers hold these names, so they must not change. An HTTP status that is not a success is named `http_NNN`. A user's own
generator may use other names.
"""

from __future__ import annotations

from vlmdata.web.outcomes import FINAL_5XX, PASSING_STATUS

# temporary failures: a later attempt may succeed
PASSING = {
    "timeout": "no complete answer in time",
    "connection": "the connection to the endpoint failed or broke",
    "cut": "the connection ended within the answer",
    "tls": "no secure connection to the endpoint",
    "malformed": "the endpoint's answer is not in the form of its protocol",
}
# failures that another attempt does not change
FINAL = {
    "bad_image": "an image of the prompt cannot be decoded",
    "no_probabilities": "the model or its server gives no probabilities of tokens (logprobs)",
    "redirect": "the endpoint names another address",
    "too_large": "the endpoint's answer has too many bytes",
}


def is_passing(failure: str) -> bool:
    """Return whether a failure is temporary. A name that is not listed here is not."""
    status = _status(failure)
    return failure in PASSING or status in PASSING_STATUS or (500 <= status < 600 and status not in FINAL_5XX)


def meaning(failure: str) -> str:
    """Return what a failure means, or an empty string for a name that is not listed here."""
    if status := _status(failure):
        return f"the endpoint answered {status}"
    return PASSING.get(failure) or FINAL.get(failure, "")


def _status(failure: str) -> int:
    number = failure.removeprefix("http_")
    return int(number) if len(number) == 3 and number.isascii() and number.isdigit() and failure != number else 0
