"""Reads the domains, keys and SHA-256 of a takedown, and finds what is near to a word that no row has."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.dataset import read_manifest
from vlmdata.engine.output.ledger import ledger_files, take_rows, words_of
from vlmdata.engine.output.lookup import candidates
from vlmdata.engine.partitions.tombstones import KEY_DIGITS
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.readable import visible
from vlmdata.redact import redacted
from vlmdata.row import flatten
from vlmdata.step import RecipeError
from vlmdata.web.url import parse_url

HOSTS = 100_000  # hosts of a dataset that are compared with a domain
NEAR = 3  # hosts that a message names
KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}(_[1-9][0-9]*)?")  # of equal rows, all but the first have a number
SHA256 = re.compile("[0-9a-f]{64}")
HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/:?#]+)"


def domain_of(word: str) -> str:
    """Return a domain as addresses have it: in lower case, international names in ASCII, without scheme and port.

    `https://host/` and `*.host` mean `host`. Raises RecipeError for an address with a path, and for a port, because a domain
    includes all ports.
    """
    text = word.strip()
    if text.count(":") > 1 and "[" not in text and "://" not in text:  # an IPv6 address without brackets
        text = f"[{text}]"
    scheme, sign, rest = text.partition("://")
    host = (rest if sign else text).removeprefix("*.").strip(".")
    parsed = parse_url(f"{scheme.lower() if sign else 'http'}://{host}")
    if parsed is None:
        raise RecipeError(f"--domain {word}: this is not a domain. Write it like example.org")
    if parsed.path.strip("/") or any(mark in host for mark in "?#@"):
        raise RecipeError(
            f"--domain {word}: this is an address. Name it with --url, or its whole domain: --domain {parsed.host}"
        )
    if parsed.port != (443 if scheme.lower() == "https" and sign else 80):
        raise RecipeError(f"--domain {word}: a domain includes all ports. Name it without one: --domain {parsed.host}")
    return parsed.host.rstrip(".")


def key_of(word: str) -> str:
    """Return the key of a sample in lower case. Raises RecipeError if it cannot be one: to forget it has no effect."""
    text = word.strip().lower()
    if not KEY.fullmatch(text):
        form = "A key is 24 hex digits, and perhaps _ and a number, as in `vlmdata why` and in the names of the files in a tar"
        raise RecipeError(f"--key {visible(redacted(word), 80)}: this is not a key. {form}{_option_for(text)}")
    return text


def sha256_of(word: str) -> str:
    """Return a SHA-256 in lower case. Raises RecipeError if it cannot be one: to forget it has no effect."""
    text = word.strip().lower()
    if not SHA256.fullmatch(text):
        form = "Write the 64 hex digits that `sha256sum FILE` prints first"
        raise RecipeError(f"--sha256 {visible(redacted(word), 80)}: this is not a SHA-256. {form}{_option_for(text)}")
    return text


def _option_for(text: str) -> str:
    """Return which option takes a word that another option refused, as the end of a message, or ""."""
    forms = {"key": KEY, "sha256": SHA256, "url": re.compile("https?://.+")}
    return next((f". Name it with --{option}" for option, form in forms.items() if form.fullmatch(text)), "")


def near_lines(out: str | Path, not_found: list[str]) -> list[str]:
    """Return a line for each word that was not found, if the dataset has an address or a host that is nearly the same."""
    manifest = read_manifest(out)
    store = open_store(out, probe=False)
    names = ledger_files(manifest)
    lines = []
    hosts: list[str] | None = None
    for word in not_found[:NEAR]:
        if "://" in word:
            near = list(dict.fromkeys(one for name in names for one in _same_page(store, name, word)))[:NEAR]
        elif "." in word or ":" in word:
            hosts = _hosts(store, names) if hosts is None else hosts
            near = difflib.get_close_matches(word, hosts, NEAR)
        else:
            near = []
        if near:
            lines.append(redacted(f"  near to {word}: {', '.join(near)}"))
    return lines


def _same_page(store: Store, name: str, url: str) -> Iterator[str]:
    """Yield the addresses of a ledger file that differ from `url` only in the scheme, `www.` or the last slash."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    host = parts.netloc.removeprefix("www.")
    path = parts.path.rstrip("/")
    others = {
        parts._replace(scheme=scheme, netloc=netloc, path=end, fragment="").geturl()
        for scheme in ("http", "https")
        for netloc in (host, f"www.{host}")
        for end in (path, f"{path}/")
    }
    wanted = sorted(others - {url})
    rows = candidates(store, name, wanted)
    for line in take_rows(store, name, rows).to_pylist() if len(rows) else []:
        yield from sorted(words_of(line) & set(map(redacted, wanted)))


def _hosts(store: Store, names: list[str]) -> list[str]:
    """Return the first hosts of the dataset's addresses."""
    found: dict[str, None] = {}
    for name in names:
        with open_parquet(store, name) as file:
            for batch in file.iter_batches(100_000, columns=["url", "images"]):
                rows = pa.table(batch)
                for urls in (rows["url"].combine_chunks(), flatten(rows, "images").field("url")):
                    hosts = pc.struct_field(pc.extract_regex(urls, HOST), "host").drop_null()
                    found |= dict.fromkeys(pc.utf8_lower(pc.unique(hosts)).to_pylist())
                if len(found) > HOSTS:
                    return list(found)[:HOSTS]
    return list(found)
