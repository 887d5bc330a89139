"""Parameters of the `download` step for access to the web."""

from dataclasses import dataclass, field
from typing import Annotated

from vlmdata.parameters import Doc
from vlmdata.web.address import is_public
from vlmdata.web.url import parse_url


@dataclass(frozen=True)
class WebOptions:
    """The limits of a worker's client and the rules for its requests to hosts, with the sources of their defaults."""

    contact: Annotated[
        str, Doc("Mail address or page of the operator, sent in the User-Agent so that a site can complain (RFC 9110, 10.1.5).")
    ] = ""
    agent: Annotated[
        str,
        Doc("Product token: the name by which robots.txt and X-Robots-Tag address the client (img2dataset: user_agent_token)."),
    ] = "vlmdata"

    max_bytes: Annotated[
        int,
        Doc(
            "Size of the largest body, as sent and after decompression.",
            unit="bytes",
            source="vlmdata's choice: a larger image is usually a scan, not a photo",
        ),
    ] = 20_000_000
    timeout_s: Annotated[
        float,
        Doc(
            "Time for one attempt from connecting to the last byte, redirects included. With only a socket timeout, a "
            "slow server can send for hours (img2dataset 289, 74).",
            unit="seconds",
            source="vlmdata's choice; NeMo Curator allows 15, Data-Juicer 30",
        ),
    ] = 20.0
    connect_timeout_s: Annotated[
        float, Doc("Time to connect, TLS included.", unit="seconds", source="img2dataset's socket timeout")
    ] = 10.0
    max_redirects: Annotated[
        int, Doc("Redirects that are followed for one address.", unit="redirects", source="urllib, which img2dataset uses")
    ] = 10
    max_header_bytes: Annotated[
        int,
        Doc(
            "Size of all header lines of one answer.",
            unit="bytes",
            source="vlmdata's choice: servers have limits of 8 to 32 KB themselves",
        ),
    ] = 65_536
    connections: Annotated[
        int,
        Doc(
            "Concurrent transfers in one worker.",
            unit="transfers",
            source="vlmdata's choice: with 2% slow hosts, a larger number did not give more rows per second",
        ),
    ] = 128
    run_connections: Annotated[
        int,
        Doc(
            "Concurrent requests of all workers of a run together, for a network that allows no more. 0: no limit.",
            unit="requests",
        ),
    ] = 0
    bytes_in_flight: Annotated[
        int,
        Doc(
            "Total size of the bodies in one worker, in transfer or held by the caller. This bounds the memory.",
            unit="bytes",
            source="vlmdata's choice",
        ),
    ] = 256_000_000
    retries: Annotated[
        int,
        Doc(
            "Further attempts after a temporary failure, each after a random delay.",
            unit="attempts",
            source="DataComp, which ran img2dataset with 2",
        ),
    ] = 2
    max_wait_s: Annotated[
        float,
        Doc(
            "Time that a row may wait in total for its host before it ends as host_busy. Only time in which the host "
            "makes no progress counts: while the host answers at least once a second (over all workers), its rows "
            "keep waiting. Therefore a long queue loses no row, and a host delays a partition by at most this time, "
            "or by a second for each of its rows.",
            unit="seconds",
            source="vlmdata's choice",
        ),
    ] = 300.0

    host_connections: Annotated[
        int,
        Doc("Concurrent requests to one host over all workers. 0: no limit.", unit="requests", source="browsers, which open 6"),
    ] = 6
    host_requests_per_s: Annotated[
        float,
        Doc(
            "Rate of requests to one host over all workers. 0: no limit. In a run of 400 rows a second, only a host "
            "with 5% of the rows reaches 20.",
            unit="requests per second",
            source="browsers, which send as many if they open a gallery page every second or two",
        ),
    ] = 20.0
    host_rates: Annotated[
        dict[str, float],
        Doc(
            "Rates for single hosts that replace `host_requests_per_s`, as {cdn.example.org: 200}. 0: no limit "
            "(img2dataset 62).",
            unit="requests per second",
        ),
    ] = field(default_factory=dict)

    robots: Annotated[bool, Doc("Whether to obey robots.txt (RFC 9309).")] = True
    opt_out: Annotated[
        tuple[str, ...],
        Doc(
            "Directives of X-Robots-Tag that refuse an image.",
            source="img2dataset's four, noml (img2dataset 365), and none, Google's abbreviation for noindex and nofollow",
        ),
    ] = ("noai", "noimageai", "noml", "noindex", "noimageindex", "none")
    tdm: Annotated[bool, Doc("Whether to obey the header tdm-reservation (W3C TDM Reservation Protocol).")] = True
    tdm_file: Annotated[
        bool,
        Doc(
            "Whether to fetch /.well-known/tdmrep.json of each site too: one more request per site, and few sites "
            "have the file."
        ),
    ] = False

    blocked_domains: Annotated[tuple[str, ...], Doc("Domains that get no request. This includes their subdomains.")] = ()
    blocked_urls: Annotated[tuple[str, ...], Doc("Addresses that are never fetched.")] = ()
    block_files: Annotated[
        tuple[str, ...],
        Doc(
            "Text files with one domain or address per line and comments after #, such as lists of malware sites "
            "(img2dataset 281)."
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[str, ...], Doc('Hosts that are allowed to have a private address: "name", "127.0.0.1" or "name:8080".')
    ] = ()
    proxy: Annotated[
        str, Doc("Proxy, as http://host:port. The client then connects only to the proxy, which resolves host names.")
    ] = ""
    ca_file: Annotated[str, Doc("PEM file with the certificate authorities to trust. Empty: certifi's.")] = ""

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
