"""Reject alt texts that do not describe the image, such as file names, addresses, generated texts and a template's words."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_texts, flatten
from vlmdata.step import Step

Rule = Literal["file_name", "camera_name", "address", "may_contain", "placeholder", "no_letters", "code"]

_ENDINGS = r"(?:jpe?g|png|gif|webp|avif|bmp|tiff?|svg|heic|jfif|psd|pdf)"
_WORDS = (
    "image|images|img|photo|photos|photograph|picture|pictures|pic|thumbnail|thumb|logo|icon|banner|avatar|placeholder|"
    "untitled|no image|no photo|no alt(?: text)?|alt(?: text)?|default|null|none|undefined|unnamed|n/a|figure|fig|slide|"
    "screenshot|screen shot|click to (?:enlarge|view|zoom)(?: (?:the )?(?:image|photo|picture))?|click here|enlarge|zoom|"
    "view (?:larger|full size|image)|read more|learn more|loading|share(?: this)?|tweet|pin it|featured image|hero image|"
    "profile (?:picture|photo|image)|product (?:image|photo|picture)|main image|article image|post image|cover image|"
    "image not (?:found|available)|no image available|image coming soon|coming soon|stock (?:photo|image)|advertisement"
)
PATTERNS: dict[str, re.Pattern[str]] = {
    "file_name": re.compile(rf"\S+\.{_ENDINGS}|[^/\\]{{0,120}}\.{_ENDINGS}", re.I),
    "camera_name": re.compile(
        r"(?:IMG|DSC[NF]?|_?MG|P|PIC|PICT|GOPR|DJI|SAM|HPIM|WP|VID|PXL|MVIMG|Screenshot|Screen Shot|FB_IMG|image|photo|"
        r"Foto|Bild|untitled)[-_ ]?\d[\d_\-. ()]*",
        re.I,
    ),
    "address": re.compile(
        r"(?:https?://|www\.|ftp://|data:image|//)\S*|[\w.-]+\.(?:com|org|net|de|co\.uk|info|io)(?:/\S*)?", re.I
    ),
    "may_contain": re.compile(
        r"(?:image|photo|picture)[\s:,]*may contain\b.*|may be an? (?:[\w-]+ ){0,3}(?:image|photo|illustration|cartoon|graphic|"
        r"selfie|meme|drawing)\b.*|(?:no |this )?(?:photo |image )?description (?:is )?not available.*|"
        r"no (?:photo |image )?description available.*",
        re.I | re.S,
    ),
    "placeholder": re.compile(rf"(?:{_WORDS})[\s\d#.:…!\-–()]*(?:of \d+)?", re.I),
    "code": re.compile(  # repeats stop at a bracket, so that a text with many brackets does not take hours
        r".*(?:<(?:img|a|div|span|p|br)\b[^<>]*>|\{\{[^{}]*\}\}|\$\{[^{}]*\}|%[A-Z_]{3,}%|javascript:|&[a-z]+;&[a-z]+;).*",
        re.I | re.S,
    ),
}


@dataclass(frozen=True, kw_only=True)
class AltJunk(Step):
    """Reject a text that consists of a file name, a camera's name for a photo, an address, a generated description
    ("Image may contain: ...") or a template's word ("click to enlarge"), or that has no letters.

    Each of these cases is a rule in `rules`. The rule `code` also rejects a text that contains code among other words. A
    caption that contains an address or a file name among other words stays. The reason of a rejected text is the rule's name.
    """

    id: ClassVar = "vlmdata.steps.alt_junk"
    example: ClassVar = "- alt_junk: {rules: [file_name, camera_name, address]}"
    reads: ClassVar = ("texts",)
    limits: ClassVar = {"*": "in rules"}

    rules: Annotated[
        list[Rule], Doc("Rules to apply. A text that matches one of them is rejected, with the rule's name as the reason.")
    ] = field(default_factory=lambda: list(get_args(Rule)))

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        found = [junk_rule(text, self.rules) if text is not None else None for text in flat.field("text").to_pylist()]
        bad = np.array([rule is not None for rule in found], dtype=bool)
        return drop_texts(rows, bad, self.name, reason=np.array(found, dtype=object))


def junk_rule(text: str, rules: list[Rule]) -> str | None:
    """Return the first of `rules` that rejects the text, or None if no rule does."""
    text = text.strip().strip("\"'“”[]()*")
    for rule in rules:
        if rule == "no_letters":
            if not any(map(str.isalpha, text)):
                return rule
        elif PATTERNS[rule].fullmatch(text):
            return rule
    return None
