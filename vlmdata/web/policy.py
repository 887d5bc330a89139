"""What one site (scheme, host and port) allows: its robots.txt and its tdmrep.json, as far as they concern us."""

from dataclasses import dataclass

from vlmdata.web.optout import file_reservation
from vlmdata.web.robots import is_allowed

DAY_S = 86_400.0  # RFC 9309, 2.4: a robots.txt is not used for longer


@dataclass(frozen=True, slots=True)
class Policy:
    """Plain values only: it travels between the workers and the arbiter of the pace."""

    rules: tuple[tuple[bool, str], ...] = ()
    """robots.txt: (allowed, pattern) of the group that speaks to us."""
    crawl_delay_s: float = 0.0
    reserved: tuple[tuple[bool, str], ...] = ()
    """tdmrep.json: (reserved, pattern), first match decides."""
    failure: str | None = None
    """Why nothing of this site may be fetched: its robots.txt could not be read."""
    ttl_s: float = DAY_S

    def refusal(self, path: str) -> str | None:
        """Return the failure for a path with its query, or None if it may be fetched."""
        if self.failure:
            return self.failure
        if not is_allowed(self.rules, path):
            return "robots"
        # the header tdm-reservation could lift this for one image, but finding out would ask for what is reserved
        return "tdm_reserved" if file_reservation(self.reserved, path) else None
