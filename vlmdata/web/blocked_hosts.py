"""Domains and addresses that a recipe blocks."""

from pathlib import Path

from vlmdata.web.options import WebOptions
from vlmdata.web.url import Url, parse_url


class BlockedHosts:
    """Domains and exact addresses that the lists and files of a recipe block. A domain includes its subdomains.

    The constructor raises ValueError for an entry that is not a domain or an http(s) address.
    """

    def __init__(self, options: WebOptions) -> None:
        self._domains: set[str] = set()
        self._urls: set[str] = set()
        for domain in options.blocked_domains:
            self._add_domain(domain, "blocked_domains")
        for url in options.blocked_urls:
            self._add_url(url, "blocked_urls")
        for name in options.block_files:
            for number, line in enumerate(Path(name).read_text(encoding="utf-8").splitlines(), 1):
                words = line.partition("#")[0].split()
                if not words:
                    continue
                if "://" in words[-1]:
                    self._add_url(words[-1], f"{name}, line {number}")
                else:  # the last word, because in a hosts file the domain follows 0.0.0.0
                    self._add_domain(words[-1], f"{name}, line {number}")

    def blocks(self, url: Url) -> bool:
        """Return whether the lists contain an address, its host or a parent domain of the host."""
        return url.text in self._urls or is_within(url.host, self._domains)

    def _add_domain(self, domain: str, where: str) -> None:
        self._domains.add(domain_of(domain, where))

    def _add_url(self, url: str, where: str) -> None:
        parsed = parse_url(url)
        if parsed is None:
            raise ValueError(f"{where}: {url!r} is not an http(s) address")
        self._urls.add(parsed.text)


def is_within(host: str, domains: set[str]) -> bool:
    """Return whether a host is one of the domains or a subdomain of one of them."""
    while host and domains:
        if host in domains:
            return True
        host = host.partition(".")[2]
    return False


def domain_of(word: str, where: str) -> str:
    """Return a domain in canonical form. Raise ValueError, with `where` in its message, if `word` is not a domain."""
    parsed = parse_url(f"http://{word.lstrip('*').strip('.')}/")
    if parsed is None or parsed.path != "/":
        raise ValueError(f"{where}: {word!r} is not a domain. Write it like example.org, without scheme and path")
    return parsed.host
