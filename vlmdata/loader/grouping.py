"""Which members of a tar are one sample.

The rule is webdataset's: the key ends at the first dot of the file's name, folders belong to the key, extensions are lower
case. Names with more dots than that rule expects have a rule of their own (`_by_longer_names`).
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from vlmdata.loader.tar import Link, Member, TarDamage

IMAGE_EXTENSIONS = frozenset(["avif", "bmp", "gif", "jfif", "jpeg", "jpg", "png", "tif", "tiff", "webp"])
UNREAD_IMAGE_EXTENSIONS = frozenset(["exr", "hdr", "heic", "heif", "hif", "ico", "j2k", "jp2", "jxl", "psd", "qoi"])
CAPTION_EXTENSIONS = ("txt", "text", "caption")
TEXT_EXTENSIONS = (*CAPTION_EXTENSIONS, "json")  # the first that a sample has gives its text_chars
_MAX_DOTS = 16  # in an extension: every part of a name up to a dot is looked up


class TarSample(NamedTuple):
    """Members that share a key: (extension, member) in the tar's order. They need not be neighbours."""

    key: str
    members: list[tuple[str, Member]]


class TarContents(NamedTuple):
    """What a tar holds: samples in the order in which their keys first appear, what is lost, and links that lead nowhere."""

    samples: list[TarSample]
    damages: list[TarDamage]
    lost_links: list[TarDamage]  # only of links whose names would be a sample's


def contents(found: Sequence[Member | Link | TarDamage], *, longer_names: bool = True) -> TarContents:
    """Group what `members` found. `longer_names` False: names with several dots are grouped by webdataset's rule too."""
    files = [one for one in found if isinstance(one, Member)]
    lost: list[TarDamage] = []
    if len(files) < len(found) and (links := [one for one in found if isinstance(one, Link)]):
        files, lost = _with_links(files, links)
    grouped = samples(files)
    if longer_names and any("." in sample.members[0][0] for sample in grouped):
        grouped = [one for sample in grouped for one in _by_longer_names(sample)]
    return TarContents(grouped, [one for one in found if isinstance(one, TarDamage)], lost)


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
        dot = _key_end(name)
        if not dot:
            continue
        key, extension = name[:dot], name[dot + 1 :].lower()
        sample, seen = latest.get(key, (None, set()))
        if sample is None or extension in seen:
            sample, seen = latest[key] = TarSample(key, []), set()
            result.append(sample)
        sample.members.append((extension, member))
        seen.add(extension)
    return result


def _key_end(name: str) -> int:
    """Return where the key of a name ends; 0 for a name that is no sample's."""
    start = name.rfind("/") + 1
    dot = name.find(".", start)
    return 0 if dot <= start or (start == 0 and name.startswith("__") and name.endswith("__")) else dot


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


def _with_links(files: list[Member], links: list[Link]) -> tuple[list[Member], list[TarDamage]]:
    """Return the files in their order with the links that lead to one of them as files too, and the links that do not.

    A hard link leads to the file before it, a symbolic one to a later one where there is none before.
    """
    later = {posixpath.normpath(file.name): file for file in reversed(files)}
    before: dict[str, Member] = {}
    result: list[Member] = []
    lost: list[TarDamage] = []
    for one in sorted([*files, *links], key=attrgetter("header")):
        file: Member | None = one if isinstance(one, Member) else None
        if isinstance(one, Link):
            folder = posixpath.dirname(one.name) if one.is_symbolic else ""
            target = posixpath.normpath(posixpath.join(folder, one.target))
            if found := before.get(target) or (later.get(target) if one.is_symbolic else None):
                file = Member(one.name, one.header, found.offset, found.size, one.end)
            elif _key_end(one.name):
                why = f"{one.name!r} is a link to {one.target!r}, which is no file of this tar"
                lost.append(TarDamage(one.header, one.end, why))
        if file is not None:
            before[posixpath.normpath(file.name)] = file
            result.append(file)
    return result, lost
