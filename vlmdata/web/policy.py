"""The policy of one site (scheme, host and port): what its robots.txt and its tdmrep.json allow this agent."""

from dataclasses import dataclass

from vlmdata.web.optout import file_reservation
from vlmdata.web.robots import is_allowed

DAY_S = 86_400.0  # longest use of a robots.txt: RFC 9309, 2.4


@dataclass(frozen=True, slots=True)
class Policy:
    """What a site allows this agent. It holds plain values only, because workers and the rate limiter exchange it by pickle."""

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
