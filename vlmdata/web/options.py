"""What a recipe can say about reaching the web: the parameters of the `download` step, one dataclass of plain values."""

from dataclasses import dataclass, field

from vlmdata.web.address import is_public
from vlmdata.web.url import parse_url


@dataclass(frozen=True)
class WebOptions:
    """Limits of one worker's client, and how it treats the hosts it asks. Every default says where it comes from."""

    contact: str = ""
    """A mail address or page of whoever runs the job, sent in the User-Agent so that a site can complain (RFC 9110, 10.1.5)."""
    agent: str = "vlmdata"
    """The product token: the name that robots.txt and X-Robots-Tag can address (img2dataset: user_agent_token)."""

    max_bytes: int = 20_000_000
    """Largest body, as sent and after decompression; 2% of a gigabyte for a single image is already a scan, not a photo."""
    timeout_s: float = 20.0
    """Seconds for one attempt from connecting to the last byte, redirects included. A socket timeout alone lets a server
    drip for hours (img2dataset 289, 74). NeMo Curator allows 15, Data-Juicer 30."""
    connect_timeout_s: float = 10.0
    """Seconds to a connection, TLS included; img2dataset's socket timeout."""
    max_redirects: int = 10
    """As urllib, on which img2dataset stands."""
    max_header_bytes: int = 65_536
    """All header lines of one answer; servers' own limits lie between 8 and 32 KB."""
    connections: int = 128
    """Transfers at once in one worker; with 2% slow hosts more gave no more rows per second."""
    run_connections: int = 0
    """Requests under way or about to be over all workers of a run, 0 for no limit but those of each worker: for a line or a
    router that takes no more."""
    bytes_in_flight: int = 256_000_000
    """Bodies being received or held by the caller in one worker: what bounds memory, whatever the images' sizes."""
    retries: int = 2
    """Further attempts after a passing failure, each after a random wait (DataComp ran img2dataset with 2)."""
    max_wait_s: float = 300.0
    """Seconds a row may wait in all for its host's turn, then it ends as host_busy. Only time in which the host does not get
    on counts: while it answers once a second or more (over all workers), its rows keep their place however many are before
    them. So no row is lost to a long queue, and a host holds a part no longer than this, or a second for each row of its."""

    host_connections: int = 6
    """Requests at once to one host over all workers, 0 for no limit; what a browser opens to one host."""
    host_requests_per_s: float = 20.0
    """Requests per second to one host over all workers, 0 for no limit: a browser that opens a gallery page every second or
    two. The rows of a list are spread, so only a host with 5% of it comes near in a run of 400 rows a second."""
    host_rates: dict[str, float] = field(default_factory=dict)
    """Other paces for hosts named here, as {"cdn.example.org": 200}; 0 for no limit (img2dataset 62)."""

    robots: bool = True
    """Obey robots.txt (RFC 9309)."""
    opt_out: tuple[str, ...] = ("noai", "noimageai", "noml", "noindex", "noimageindex", "none")
    """Directives of X-Robots-Tag that refuse an image: img2dataset's four, noml (img2dataset 365), and none, which is
    Google's word for noindex and nofollow."""
    tdm: bool = True
    """Obey the header tdm-reservation (W3C TDM Reservation Protocol)."""
    tdm_file: bool = False
    """Also ask each site for /.well-known/tdmrep.json: one more request per site, and few sites have one."""

    blocked_domains: tuple[str, ...] = ()
    """Domains never asked, with their subdomains."""
    blocked_urls: tuple[str, ...] = ()
    """Addresses never asked."""
    block_files: tuple[str, ...] = ()
    """Text files with one domain or address a line (# begins a comment), as lists of malware sites are (img2dataset 281)."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts reached though their address is private: "name", "127.0.0.1" or "name:8080"."""
    proxy: str = ""
    """As http://host:port. The proxy is then the one address connected to, and resolves names itself."""
    ca_file: str = ""
    """PEM file of the authorities to trust instead of certifi's."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_header_bytes", "connections", "bytes_in_flight", "timeout_s", "connect_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("max_redirects", "retries", "max_wait_s", "host_connections", "host_requests_per_s", "run_connections"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, as {getattr(self, name)} is")
        if not self.agent or not self.agent.replace("-", "").replace("_", "").isalpha() or not self.agent.isascii():
            raise ValueError(f"agent is a product token of letters, - and _ (RFC 9309, 2.2.1), not {self.agent!r}")
        if any(ord(sign) < 32 or ord(sign) > 126 for sign in self.contact):
            raise ValueError(f"contact must be printable ASCII, for it is sent in a header, not {self.contact!r}")
        if self.proxy and parse_url(self.proxy) is None:
            raise ValueError(f"proxy is given as http://host:port, not {self.proxy!r}")

    def reaches(self, host: str, port: int, address: str) -> bool:
        """Tell whether a canonical host may be reached at an address: a public one, or any if the recipe names the host."""
        return is_public(address) or host in self.allowed_hosts or f"{host}:{port}" in self.allowed_hosts
