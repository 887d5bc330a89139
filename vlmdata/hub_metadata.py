"""The metadata at the top of a dataset card, in the Hub's words: licence, language, size and tasks.

Compared in August 2026 with the Hub's list of licences, https://huggingface.co/docs/hub/repositories-licenses, of tasks,
https://github.com/huggingface/huggingface.js/blob/main/packages/tasks/src/pipelines.ts, and the fields of a card,
https://github.com/huggingface/hub-docs/blob/main/datasetcard.md. Nothing is claimed that the source does not state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vlmdata.engine.output.manifest import step_entries

STATED = ("license", "licence", "license_url")  # columns of a source that state a licence
LIMITS = ((10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M"), (10**9, "1B"))
LARGEST = ((10**10, "10B"), (10**11, "100B"), (10**12, "1T"))
TASKS = {  # by kind of sample
    "captions": ["image-to-text", "text-to-image"],
    "documents": ["image-text-to-text"],
    "conversations": ["image-text-to-text", "visual-question-answering"],
}

# Licences of data that the Hub knows, by names in lower case with hyphens.
CREATIVE_COMMONS = {  # the Hub knows these versions
    "cc-by": ("2.0", "2.5", "3.0", "4.0"),
    "cc-by-sa": ("3.0", "4.0"),
    "cc-by-nc": ("2.0", "3.0", "4.0"),
    "cc-by-nd": ("4.0",),
    "cc-by-nc-nd": ("3.0", "4.0"),
    "cc-by-nc-sa": ("2.0", "3.0", "4.0"),
}
NAMES = {
    **{f"{name}-{one}": f"{name}-{one}" for name, versions in CREATIVE_COMMONS.items() for one in versions},
    **dict.fromkeys(("cc0", "cc0-1.0", "cc-zero", "cc-0", "cc-0-1.0"), "cc0-1.0"),  # CC0 has no other version
    **dict.fromkeys(("mit", "mit-license"), "mit"),
    **dict.fromkeys(("apache-2.0", "apache-license-2.0", "apache-license-version-2.0"), "apache-2.0"),
    **dict.fromkeys(("odc-by", "odc-by-1.0"), "odc-by"),
    **dict.fromkeys(("odbl", "odbl-1.0"), "odbl"),
    **dict.fromkeys(("pddl", "pddl-1.0"), "pddl"),
    **{name: name for name in ("cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "c-uda", "etalab-2.0")},
    **{
        name: name for name in ("openmdw-1.0", "openmdw-1.1", "bsd-2-clause", "bsd-3-clause", "gpl-2.0", "gpl-3.0", "unlicense")
    },
}
NO_LICENCE = frozenset(
    ("", "none", "null", "nan", "n/a", "na", "unknown", "unspecified", "undefined", "not specified", "-", "?")
)
_END = r"(?:/?|/(?:deed|legalcode)(?:\.[a-z_-]{2,7})?(?:\.html)?)$"  # of an address that means the licence without a country
_COMMONS = re.compile(r"https?://(?:www\.)?creativecommons\.org/licenses/([a-z-]{2,8})/(\d\.\d)" + _END)
_ZERO = re.compile(r"https?://(?:www\.)?creativecommons\.org/publicdomain/zero/1\.0" + _END)
_OPEN_DATA = re.compile(r"https?://(?:www\.)?opendatacommons\.org/licenses/(by|odbl|pddl)/1-0/?$")
_ADDRESS = re.compile(r"https?://[^\s\"<>]+$")


def metadata(
    manifest: Mapping[str, Any], *, samples: int, kind: str | None, has_images: bool, format_tag: str | None
) -> dict[str, Any]:
    """Return the metadata of a card. `kind` is the kind of the samples, or None without samples.

    `samples` is the number of samples that the card describes. `format_tag` is a tag for the format of the files.
    """
    found: dict[str, Any] = {**licence(manifest["provenance"], manifest["kept"])}
    if language := language_of(manifest["recipe"]):
        found["language"] = [language]
    if kind is not None:
        found["task_categories"] = TASKS[kind] if has_images else ["text-generation"]
    found["size_categories"] = [size_category(samples)]
    found["tags"] = ["vlmdata", *([format_tag] if format_tag else [])]
    return found


def size_category(samples: int) -> str:
    """Return the Hub's name for a range of sizes: "1K<n<10K"."""
    limits = (*LIMITS, *LARGEST)
    below = next((name for limit, name in limits if samples < limit), None)
    above = next((name for limit, name in reversed(limits) if limit <= samples), None)
    if below is None:
        return f"n>{above}"
    return f"{above}<n<{below}" if above else f"n<{below}"


def licence(provenance: Mapping[str, Mapping[str, int]], samples: int) -> dict[str, str]:
    """Return `license`, and for a licence that the Hub does not know `license_name` and perhaps `license_link`.

    `provenance` has the number of samples for each value of the source's columns. A licence is named only if the source states
    one and the same for all samples. With several licences, the result is `other`. If some samples have none, it is `unknown`.
    """
    stated = [
        {value: count for value, count in provenance.get(column, {}).items() if not _is_blank(value)} for column in STATED
    ]
    if not any(sum(counts.values()) == samples for counts in stated if counts):
        return {"license": "unknown"}
    values = {value for counts in stated for value in counts}
    known = {identifier_of(value) for value in values} - {None}
    if len(known) > 1 or any(len(counts) > 1 for counts in stated):
        return {"license": "other", "license_name": "several-licenses"}
    if known and all(identifier_of(value) for value in values):
        return {"license": str(known.pop())}
    addresses = [value for value in values if _ADDRESS.match(value)]
    names = [value for value in values if value not in addresses]
    name = _slug(names[0] if names else addresses[0])
    link = {"license_link": addresses[0]} if len(addresses) == 1 else {}
    return {"license": "other", "license_name": name, **link}


def identifier_of(value: str) -> str | None:
    """Return the Hub's identifier of a licence, given its name or address, or None if it is not certain.

    The version must be stated. An address of a licence for one country, such as `by/3.0/us`, is another licence.
    """
    text = value.strip().lower()
    if match := _COMMONS.match(text):
        name = f"cc-{match[1]}-{match[2]}"
    elif _ZERO.match(text):
        name = "cc0-1.0"
    elif match := _OPEN_DATA.match(text):
        name = {"by": "odc-by", "odbl": "odbl", "pddl": "pddl"}[match[1]]
    else:
        name = re.sub(r"[\s_-]+", "-", text)
    return NAMES.get(name)


def language_of(recipe: Mapping[str, Any]) -> str | None:
    """Return the ISO 639 code of the only language that the recipe's step `language` keeps, or None."""
    for name, parameters, _ in step_entries(dict(recipe)):
        if name == "language" and isinstance(keep := parameters.get("keep"), list):
            kept = {str(code) for code in keep} - {"und"}
            return kept.pop() if len(kept) == 1 else None
    return None


def _is_blank(value: str) -> bool:
    return value.strip().lower() in NO_LICENCE


def _slug(value: str) -> str:
    """Return an identifier in the form that the Hub takes: lower case letters, digits, hyphens and dots."""
    text = re.sub(r"^https?://[^/]*/?", "", value.strip().lower()) or value.strip().lower()
    return re.sub(r"[^a-z0-9.]+", "-", text)[:60].strip("-.") or "see-card"
