"""Parameters of the `download` step for access to the web."""

from dataclasses import dataclass, field

from vlmdata.web.address import is_public
from vlmdata.web.url import parse_url


@dataclass(frozen=True)
class WebOptions:
    """The limits of a worker's client and the rules for its requests to hosts, with the sources of their defaults."""

    contact: str = ""
    """A mail address or page of the operator, sent in the User-Agent so that a site can complain (RFC 9110, 10.1.5)."""
    agent: str = "vlmdata"
    """The product token: the name by which robots.txt and X-Robots-Tag address the client (img2dataset: user_agent_token)."""

    max_bytes: int = 20_000_000
    """Size in bytes of the largest body, as sent and after decompression. A larger image is usually a scan, not a photo."""
    timeout_s: float = 20.0
    """Seconds for one attempt from connecting to the last byte, redirects included. With only a socket timeout, a slow server
    can send for hours (img2dataset 289, 74). NeMo Curator allows 15, Data-Juicer 30."""
    connect_timeout_s: float = 10.0
    """Seconds to connect, TLS included. The default is img2dataset's socket timeout."""
    max_redirects: int = 10
    """Redirects that are followed for one address. urllib, which img2dataset uses, has the same limit."""
    max_header_bytes: int = 65_536
    """Maximum size in bytes of all header lines of one answer. Servers have limits of 8 to 32 KB themselves."""
    connections: int = 128
    """Concurrent transfers in one worker. With 2% slow hosts, a larger number did not give more rows per second."""
    run_connections: int = 0
    """Concurrent requests of all workers of a run together, for a network that allows no more. 0 for no such limit."""
    bytes_in_flight: int = 256_000_000
    """Maximum total size in bytes of the bodies in one worker, in transfer or held by the caller. This bounds the memory."""
    retries: int = 2
    """Further attempts after a temporary failure, each after a random delay (DataComp ran img2dataset with 2)."""
    max_wait_s: float = 300.0
    """Seconds that a row may wait in total for its host before it ends as host_busy. Only time in which the host makes no
    progress counts: while the host answers at least once a second (over all workers), its rows keep waiting. Therefore a long
    queue loses no row, and a host delays a partition by at most this time, or by a second for each of the host's rows."""

    host_connections: int = 6
    """Concurrent requests to one host over all workers, 0 for no limit. A browser opens 6."""
    host_requests_per_s: float = 20.0
    """Requests per second to one host over all workers, 0 for no limit. A browser sends as many if it opens a gallery page
    every second or two. In a run of 400 rows a second, only a host with 5% of the rows reaches this rate."""
    host_rates: dict[str, float] = field(default_factory=dict)
    """Requests per second to single hosts, as {"cdn.example.org": 200}; 0 for no limit (img2dataset 62)."""

    robots: bool = True
    """Obey robots.txt (RFC 9309)."""
    opt_out: tuple[str, ...] = ("noai", "noimageai", "noml", "noindex", "noimageindex", "none")
    """Directives of X-Robots-Tag that refuse an image: img2dataset's four, noml (img2dataset 365), and "none", Google's
    abbreviation for noindex and nofollow."""
    tdm: bool = True
    """Obey the header tdm-reservation (W3C TDM Reservation Protocol)."""
    tdm_file: bool = False
    """Also fetch /.well-known/tdmrep.json of each site: one more request per site, and few sites have the file."""

    blocked_domains: tuple[str, ...] = ()
    """Domains that get no request. This includes their subdomains."""
    blocked_urls: tuple[str, ...] = ()
    """Addresses that are never fetched."""
    block_files: tuple[str, ...] = ()
    """Text files with one domain or address per line and comments after #, such as lists of malware sites (img2dataset 281)."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that are allowed to have a private address: "name", "127.0.0.1" or "name:8080"."""
    proxy: str = ""
    """Proxy, as http://host:port. The client then connects only to the proxy, which resolves host names."""
    ca_file: str = ""
    """PEM file with the certificate authorities to trust, instead of certifi's."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_header_bytes", "connections", "bytes_in_flight", "timeout_s", "connect_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("max_redirects", "retries", "max_wait_s", "host_connections", "host_requests_per_s", "run_connections"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not self.agent or not self.agent.replace("-", "").replace("_", "").isalpha() or not self.agent.isascii():
            raise ValueError(f"agent must be a product token of letters, '-' and '_' (RFC 9309, 2.2.1), not {self.agent!r}")
        if any(ord(sign) < 32 or ord(sign) > 126 for sign in self.contact):
            raise ValueError(f"contact must be printable ASCII, not {self.contact!r}, because it is sent in a header")
        if self.proxy and parse_url(self.proxy) is None:
            raise ValueError(f"proxy must be http://host:port, not {self.proxy!r}")

    def reaches(self, host: str, port: int, address: str) -> bool:
        """Return whether the client may connect to `address`, an IP address of `host`.

        It may if the address is public or `allowed_hosts` lists the host.
        """
        return is_public(address) or host in self.allowed_hosts or f"{host}:{port}" in self.allowed_hosts
