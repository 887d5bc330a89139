"""Groups the members of a tar into samples.

The rule is webdataset's: the key ends at the first dot of the file's name, folders are part of the key, and extensions are
converted to lower case. Names with more dots than this rule expects follow another rule (`_by_longer_names`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from vlmdata.images.formats import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, UNREAD_IMAGE_EXTENSIONS
from vlmdata.loader.index.tar import Link, Member, TarDamage

VERSION = 3  # increase this when the same tar gives other samples, so that cached indexes are rebuilt
_MAX_DOTS = 16  # limit of dots in an extension, because each dot takes a lookup


class SampleMembers(NamedTuple):
    """A sample: its key, and its members as (extension, member) in tar order. Other samples' members may be between them."""

    key: str
    members: list[tuple[str, Member]]


class TarContents(NamedTuple):
    """The content of a tar: samples in the order in which their keys first occur, damaged stretches, and links."""

    samples: list[SampleMembers]
    damages: list[TarDamage]
    links: list[Link]  # only links that have the name of a sample's member, such as 0001.jpg


def contents(found: Sequence[Member | Link | TarDamage], *, longer_names: bool = True) -> TarContents:
    """Return the samples, damaged stretches and links among the results of `tar.members`.

    Samples are grouped by webdataset's rule. With `longer_names`, names with several dots may follow the rule of
    `_by_longer_names`.
    """
    grouped = samples(one for one in found if isinstance(one, Member))
    if longer_names and any("." in sample.members[0][0] for sample in grouped):
        grouped = [one for sample in grouped for one in _by_longer_names(sample)]
    links = [one for one in found if isinstance(one, Link) and key_of(one.name)]
    return TarContents(grouped, [one for one in found if isinstance(one, TarDamage)], links)


def samples(files: Iterable[Member]) -> list[SampleMembers]:
    """Return members grouped by webdataset's rule, in the order in which their keys first occur.

    A member joins the latest sample with its key, even if members of other samples are between them. If that sample already has
    the member's extension, the member starts a new sample, so that repeated keys stay separate. Names without an extension,
    hidden files and webdataset's `__meta__` files are left out.
    """
    result: list[SampleMembers] = []
    latest: dict[str, tuple[SampleMembers, set[str]]] = {}
    for member in files:
        name = member.name
        key = key_of(name)
        if not key:
            continue
        extension = name[len(key) + 1 :].lower()
        sample, seen = latest.get(key, (None, set()))
        if sample is None or extension in seen:
            sample, seen = latest[key] = SampleMembers(key, []), set()
            result.append(sample)
        sample.members.append((extension, member))
        seen.add(extension)
    return result


def key_of(name: str) -> str:
    """Return the key of a member's name by webdataset's rule, or "" for a name that belongs to no sample."""
    start = name.rfind("/") + 1
    dot = name.find(".", start)
    return "" if dot <= start or (start == 0 and name.startswith("__") and name.endswith("__")) else name[:dot]


def _by_longer_names(sample: SampleMembers) -> list[SampleMembers]:
    """Split a sample whose names have more dots than webdataset's rule expects.

    By webdataset's rule, `22.05.png` and `22.05.txt` have the key `22`. After the split, they have the key `22.05`. An image
    and a text match if the text's name without its last extension, here `22.05`, is the image's name up to some dot. The sample
    is split if every extension by webdataset's rule contains a dot, and if more than half of the images and more than half of
    the texts match. Any other sample is returned unchanged. In a split sample, the key of a member without a match is its name
    without the last extension.
    """
    if any(not 0 < extension.count(".") <= _MAX_DOTS for extension, _ in sample.members):
        return [sample]
    rests = [member.name[len(sample.key) + 1 :] for _, member in sample.members]
    images = [rest for rest in rests if _ending(rest) in IMAGE_EXTENSIONS | UNREAD_IMAGE_EXTENSIONS]
    texts = [rest for rest in rests if _ending(rest) in TEXT_EXTENSIONS]
    pictures = set(images)
    named = {_stem(stem) if (stem := _stem(text)) in pictures else stem for text in texts}  # `1.5.png.txt` counts as `1.5.txt`
    shared = {stem for image in images for stem in _stems(image) if stem in named}
    paired = [image for image in images if any(stem in named for stem in _stems(image))]
    captions = [text for text in texts if any(stem in shared for stem in _stems(text))]
    if 2 * len(paired) <= len(images) or 2 * len(captions) <= len(texts):
        return [sample]
    parts: dict[str, list[tuple[str, Member]]] = {}
    for rest, (_, member) in zip(rests, sample.members, strict=True):
        stem = next((stem for stem in _stems(rest) if stem in shared), _stem(rest))
        parts.setdefault(stem, []).append((rest[len(stem) + 1 :].lower(), member))
    return [SampleMembers(f"{sample.key}.{stem}", found) for stem, found in parts.items()]


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _stems(name: str) -> Iterator[str]:
    """Yield the prefixes of a name up to each of its dots, the longest first."""
    while name := _stem(name):
        yield name
