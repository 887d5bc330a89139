"""Reads robots.txt (RFC 9309), the file in which a site says which paths an agent may fetch."""

import re

MAX_BYTES = 512_000  # RFC 9309, 2.5: read at least 500 kibibytes; the rest may be ignored
MAX_CRAWL_DELAY_S = 3_600.0
_LINE_END = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"[a-zA-Z_-]+")
_HEX = re.compile(r"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Rules = tuple[tuple[bool, str], ...]


def parse_robots(body: bytes, agent: str) -> tuple[Rules, float]:
    """Return the rules for an agent as (allowed, normalised pattern), and its crawl delay in seconds.

    Groups that name the agent are merged. If no group does, the groups for `*` apply (RFC 9309, 2.2.1). Crawl-delay is not in
    the RFC, but sites use it, so it is obeyed. All other lines are ignored.
    """
    if len(body) > MAX_BYTES:
        body = body[:MAX_BYTES].rpartition(b"\n")[0]  # a truncated line could disallow more or less than the complete line
    groups: dict[str, list[tuple[bool, str]]] = {}
    delays: dict[str, float] = {}
    agents: list[str] = []
    in_rules = False
    for line in _LINE_END.split(body.decode("utf-8-sig", errors="replace")):
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "user-agent":
            if in_rules:
                agents, in_rules = [], False
            token = _TOKEN.match(value)
            agents.append("*" if value.startswith("*") else token.group().lower() if token else "")
            groups.setdefault(agents[-1], [])
        elif key in ("allow", "disallow"):
            in_rules = True
            for name in agents:
                if value:  # an empty pattern matches nothing
                    groups[name].append((key == "allow", normalise(value, is_pattern=True)))
        elif key == "crawl-delay":
            for name in agents:
                delays[name] = _seconds(value)
    name = agent.lower() if agent.lower() in groups else "*"
    return tuple(groups.get(name, ())), delays.get(name, 0.0)


def is_allowed(rules: Rules, path: str) -> bool:
    """Return whether a path with its query may be fetched.

    The longest matching pattern decides. Of two patterns of equal length, Allow wins (RFC 9309, 2.2.2).
    """
    if not rules:
        return True
    path = normalise(path, is_pattern=False)
    if path.partition("?")[0] == "/robots.txt":
        return True
    longest, allowed = -1, True
    for allow, pattern in rules:
        length = len(pattern)
        if (length > longest or (length == longest and allow)) and matches(pattern, path):
            longest, allowed = length, allow
    return allowed


def matches(pattern: str, path: str) -> bool:
    """Return whether a pattern matches the start of a path. `*` matches any characters. A final `$` matches the end.

    Each `*` takes time linear in the length of the path. A regular expression could take minutes for a hostile robots.txt.
    """
    anchored = pattern.endswith("$")
    first, *rest = (pattern[:-1] if anchored else pattern).split("*")
    if not path.startswith(first):
        return False
    if not rest:
        return not anchored or len(path) == len(first)
    place = len(first)
    for piece in rest[:-1]:
        found = path.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    if anchored:
        return len(path) - place >= len(rest[-1]) and path.endswith(rest[-1])
    return path.find(rest[-1], place) >= 0


def normalise(text: str, *, is_pattern: bool) -> str:
    """Return a path or pattern in canonical form: unreserved octets are decoded, and other escapes are %XX in capitals.

    In a path, `*` and `$` are encoded, because they are literal there (RFC 9309, 2.2.3).
    """
    text = "".join(sign if " " < sign < "\x7f" else "".join(f"%{octet:02X}" for octet in sign.encode()) for sign in text)
    text = _HEX.sub(_plain, text)
    return text if is_pattern else text.replace("*", "%2A").replace("$", "%24")


def _plain(escape: re.Match[str]) -> str:
    sign = chr(int(escape.group(1), 16))
    return sign if sign in _UNRESERVED else escape.group().upper()


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return 0.0
    return min(seconds, MAX_CRAWL_DELAY_S) if seconds > 0 else 0.0
