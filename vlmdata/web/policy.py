"""The policy of one site (scheme, host and port): which paths its robots.txt and its tdmrep.json allow this agent to fetch."""

from dataclasses import dataclass

from vlmdata.web.optout import file_reservation
from vlmdata.web.robots import is_allowed

DAY_S = 86_400.0  # maximum seconds for which a robots.txt is used: RFC 9309, 2.4


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a site for this agent. It holds only plain values, because workers and the rate limiter pickle it."""

    rules: tuple[tuple[bool, str], ...] = ()
    """Rules of robots.txt in the group that applies to the agent, as (allowed, pattern)."""
    crawl_delay_s: float = 0.0
    reserved: tuple[tuple[bool, str], ...] = ()
    """Rules of tdmrep.json, as (reserved, pattern). The first rule that matches decides."""
    failure: str | None = None
    """The reason to fetch nothing from this site, such as an unreadable robots.txt."""
    ttl_s: float = DAY_S
    """Seconds until the policy expires."""

    def refusal(self, path: str) -> str | None:
        """Return the failure for a path with its query, or None if the path may be fetched."""
        if self.failure:
            return self.failure
        if not is_allowed(self.rules, path):
            return "robots"
        # the header tdm-reservation could allow a single image, but reading the header would request the reserved image
        return "tdm_reserved" if file_reservation(self.reserved, path) else None
