"""Says in one line what went wrong between this machine and the Hub, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlmdata.errors import RecipeError, WorkFailed
from vlmdata.readable import visible
from vlmdata.redact import MARK, redacted
from vlmdata.untrusted import one_line

AGAIN = "run the same command again; it continues"
LOGIN = "Log in with `hf auth login`, or set HF_TOKEN"
LONGEST = 300  # characters of a message of the Hub


def explained(error: Exception, repo: str, endpoint: str, token: str) -> Exception:
    """Return an error with the cause and the fix, or `error` itself if it does not come from the Hub or its client.

    The new message has neither the token, which a server or the client may repeat, nor the secrets of addresses.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    for one in _chain(error):
        if isinstance(one, OfflineModeIsEnabled):
            return RecipeError("the environment forbids requests to the Hub (HF_HUB_OFFLINE). Unset it to push")
        if isinstance(one, LocalTokenNotFoundError):
            return RecipeError(f"push needs a token of the Hub. {LOGIN}")
        if isinstance(one, HfHubHTTPError):
            return _answered(one, repo, _said(one.server_message or "", token))
        if isinstance(one, HTTPError | ConnectionError):
            said = _said(one_line(one).rstrip("."), token)
            return WorkFailed(f"the Hub at {endpoint} does not answer: {said}. Check the network and HF_ENDPOINT, and {AGAIN}")
    if isinstance(error, RuntimeError | ValueError):  # the client's checks of answers, and its uploader hf_xet
        return WorkFailed(f"the upload to {repo} failed: {_said(one_line(error), token)}. Fix this and {AGAIN}")
    return error


def _said(message: str, token: str) -> str:
    """Return the start of a message in one line, without secrets."""
    return visible(redacted(message.replace(token, MARK)), LONGEST)


def _answered(error: Any, repo: str, said: str) -> Exception:
    """Return the error for an answer of the Hub. `said` is the message in the answer, or empty."""
    status = error.response.status_code
    why = f": {said}" if said else ""
    if status == 401:
        return RecipeError(f"the Hub does not accept the token for {repo} (401{why}). {LOGIN}")
    if status == 403:
        fix = "Use a token with write access: https://huggingface.co/settings/tokens"
        return RecipeError(f"the token may not write to {repo} (403{why}). {fix}")
    if status == 404:
        fix = "Check the name and the revision; a model or a Space of this name is another repository"
        return RecipeError(f"there is no dataset repository {repo}, or the token cannot see it (404{why}). {fix}")
    if status in (409, 412):
        return WorkFailed(f"{repo} was changed during the upload, perhaps by another process ({status}{why}). Now {AGAIN}")
    if status in (402, 413):
        return WorkFailed(f"the Hub has no room for the upload to {repo} ({status}{why}). Free storage there and {AGAIN}")
    if status == 429:
        wait = error.response.headers.get("Retry-After", "")
        return WorkFailed(
            f"the Hub limits requests (429{why}). Wait {f'{wait} s' if wait.isdigit() else 'a while'} and {AGAIN}"
        )
    if status >= 500:
        return WorkFailed(f"the Hub failed ({status}{why}). Wait a while and {AGAIN}")
    return WorkFailed(f"the Hub refuses the upload to {repo} ({status}{why}). Fix this and {AGAIN}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes. The client's threads wrap the error of an upload."""
    while error is not None:
        yield error
        error = error.__cause__
