"""Which members of a tar are one sample.

The rule is webdataset's: the key ends at the first dot of the file's name, folders belong to the key, extensions are lower
case. Names with more dots than that rule expects have a rule of their own (`_by_longer_names`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vlmdata.images.formats import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, UNREAD_IMAGE_EXTENSIONS
from vlmdata.loader.index.tar import Link, Member, TarDamage

VERSION = 3  # raise it when the same tar gives other samples: indexes that were kept are then made again
_MAX_DOTS = 16  # in an extension: every part of a name up to a dot is looked up


class TarSample(NamedTuple):
    """Members that share a key: (extension, member) in the tar's order. They need not be neighbours."""

    key: str
    members: list[tuple[str, Member]]


class TarContents(NamedTuple):
    """What a tar holds: samples in the order in which their keys first appear, what is lost, and links in place of members."""

    samples: list[TarSample]
    damages: list[TarDamage]
    links: list[Link]  # only those whose names would be a sample's


def contents(found: Sequence[Member | Link | TarDamage], *, longer_names: bool = True) -> TarContents:
    """Group what `members` found. `longer_names` False: names with several dots are grouped by webdataset's rule too."""
    grouped = samples(one for one in found if isinstance(one, Member))
    if longer_names and any("." in sample.members[0][0] for sample in grouped):
        grouped = [one for sample in grouped for one in _by_longer_names(sample)]
    links = [one for one in found if isinstance(one, Link) and key_of(one.name)]
    return TarContents(grouped, [one for one in found if isinstance(one, TarDamage)], links)


def samples(files: Iterable[Member]) -> list[TarSample]:
    """Group members by webdataset's rule, in the order in which keys first appear.

    A member joins the latest sample of its key, however far back, unless that one already has its extension: then it
    starts a new sample, so that repeated keys stay separate. Names without an extension, hidden files and webdataset's
    own `__meta__` files are no samples.
    """
    result: list[TarSample] = []
    latest: dict[str, tuple[TarSample, set[str]]] = {}
    for member in files:
        name = member.name
        key = key_of(name)
        if not key:
            continue
        extension = name[len(key) + 1 :].lower()
        sample, seen = latest.get(key, (None, set()))
        if sample is None or extension in seen:
            sample, seen = latest[key] = TarSample(key, []), set()
            result.append(sample)
        sample.members.append((extension, member))
        seen.add(extension)
    return result


def key_of(name: str) -> str:
    """Return the key of a member's name by webdataset's rule; the empty text for a name that is no sample's."""
    start = name.rfind("/") + 1
    dot = name.find(".", start)
    return "" if dot <= start or (start == 0 and name.startswith("__") and name.endswith("__")) else name[:dot]


def _by_longer_names(sample: TarSample) -> list[TarSample]:
    """Part a sample whose names have more dots than webdataset's rule expects: `22.05.png` and `22.05.txt` are `22.05`.

    This holds where every extension has a dot, and most of the images and most of the texts share a name up to a later
    dot, the text's last. Members that share none then go by their last dot. Else the sample stays as it is.
    """
    if any(not 0 < extension.count(".") <= _MAX_DOTS for extension, _ in sample.members):
        return [sample]
    rests = [member.name[len(sample.key) + 1 :] for _, member in sample.members]
    images = [rest for rest in rests if _ending(rest) in IMAGE_EXTENSIONS | UNREAD_IMAGE_EXTENSIONS]
    texts = [rest for rest in rests if _ending(rest) in TEXT_EXTENSIONS]
    pictures = set(images)
    named = {_stem(stem) if (stem := _stem(text)) in pictures else stem for text in texts}  # of `1.5.png.txt` as of `1.5.txt`
    shared = {stem for image in images for stem in _stems(image) if stem in named}
    paired = [image for image in images if any(stem in named for stem in _stems(image))]
    told = [text for text in texts if any(stem in shared for stem in _stems(text))]
    if 2 * len(paired) <= len(images) or 2 * len(told) <= len(texts):
        return [sample]
    parts: dict[str, list[tuple[str, Member]]] = {}
    for rest, (_, member) in zip(rests, sample.members, strict=True):
        stem = next((stem for stem in _stems(rest) if stem in shared), _stem(rest))
        parts.setdefault(stem, []).append((rest[len(stem) + 1 :].lower(), member))
    return [TarSample(f"{sample.key}.{stem}", found) for stem, found in parts.items()]


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _stems(name: str) -> Iterator[str]:
    """Yield a name up to each of its dots, the longest first."""
    while name := _stem(name):
        yield name
