"""Tars in WebDataset's layout, from vlmdata or other tools. They hold captions or documents. Images stay in the tars."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.images.formats import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS, TEXT_EXTENSIONS, UNREAD_IMAGE_EXTENSIONS
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Member, Read
from vlmdata.parameters import Doc
from vlmdata.readers.conversation_rows import conversation
from vlmdata.readers.dialogue import checked_turns, read_dialogue
from vlmdata.readers.dotted_paths import NO_TEXT, value_at
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.grounded_texts import document_groundings
from vlmdata.readers.image_members import IMAGES, TURNS, Members, holds_turns, turns_alone
from vlmdata.readers.nested import texts_in
from vlmdata.readers.pair_rows import json_object, one_text
from vlmdata.readers.plain_rows import captioned, document, pair, reject, tables
from vlmdata.readers.sample_facts import (
    document_origins,
    is_own_sample,
    origins_in,
    own_caption,
    stated_fields,
    unstated_document_fields,
    unstated_fields,
    with_grounding,
    with_origin,
)
from vlmdata.readers.source_images import in_place, inline, keep_addresses
from vlmdata.readers.strings import caption_text, check_encoding, clean, is_blank
from vlmdata.readers.tar_samples import (
    ENDINGS,
    MAX_CAPTION,
    MAX_IMAGE,
    BadSample,
    RowOf,
    member_bytes,
    names_within,
    sample_json,
    tar_rows,
)
from vlmdata.readers.tool_calls import Unfit, checked_tools, json_text
from vlmdata.sizes import counted, noun
from vlmdata.step import RecipeError, Source


@dataclass(frozen=True, kw_only=True)
class Webdataset(Source):
    """Yield one row for each sample of tars. A row refers to image bytes in an uncompressed tar and does not copy them.

    A sample that has no caption, and whose JSON holds `conversations` or `messages`, is a conversation (layout `documents`).

    Tars from vlmdata or img2dataset are read without loss. Rows keep addresses, hashes, alternatives with their origins, boxes
    with their labels and the words that stand for them, roles and turns. Scores become `earlier_scores` in the sample's JSON.
    A sample without an image is dropped as `no_image`, except a conversation. A sample with an unusable image is dropped with
    the reason of the image. Each damaged range of a tar is one `bad_record`.

    In `caption` and `image`, write the part of a member's name after the key (`jpg`, `input.jpg`). If no member has this name,
    members with this ending are read.
    """

    id: ClassVar = "vlmdata.sources.webdataset"
    example: ClassVar = "source: {type: webdataset, path: OUT, caption: [txt, caption.en]}"
    shuffled: ClassVar[bool] = False

    path: Annotated[str | list[str], Doc("Tars, or folders or globs of them, local or on any store that fsspec knows.")]
    caption: Annotated[
        list[str], Doc("Members or JSON fields that hold captions. The first that is not blank is the text.")
    ] = field(default_factory=lambda: list(CAPTION_EXTENSIONS))
    image: Annotated[str | list[str] | None, Doc("Image members to read. null: all images of a sample.")] = None
    encoding: Annotated[str, Doc("Encoding of captions without a byte order mark.")] = "utf-8"

    def check(self) -> None:
        check_encoding(self.encoding)
        if self.image == []:
            raise RecipeError("image must name at least one member. Remove `image` to read all images")
        super().check()

    def files(self) -> list[File]:
        paths = [self.path] if isinstance(self.path, str) else self.path
        return find([_shards_of(path) for path in paths], ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        files = self.files()
        return [{"path": file.path, "name": name} for file, name in zip(files, names_within(files), strict=True)]

    def warning(self) -> str | None:
        """Return a warning if most of the first 100 samples of an uncompressed local tar have an image but no caption.

        The warning lists the members and JSON fields of the first such sample, one of which may hold the caption.
        """
        piece = next(
            (piece for piece in self.pieces() if piece["path"].endswith(".tar") and not is_remote(piece["path"])), None
        )
        if piece is None:
            return None
        bare: list[str] = []

        def look(sample: SampleMembers, blob: str | None, read: Read) -> dict[str, Any]:
            row = self.row(sample, blob, read)
            if row.get("texts") and not row.get("drop") and not any(text and text["text"] for text in row["texts"]):
                bare.append(", ".join(sorted({*dict(sample.members), *json.loads(row["extra"])} - {"source_key"})))
            return row

        seen = sum(1 for _ in itertools.islice(self._rows(piece, look), 100))
        if 2 * len(bare) <= seen:
            return None
        first, have = counted(seen, "sample"), noun(len(bare), "has", "have")
        what = f"{len(bare)} of the first {first} of {piece['name']} {have} an image and no caption"
        return f"{what}. The first such sample has the members and fields {bare[0]}. Set `caption` to one of them"

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(self._rows(piece, self.row))

    def _rows(self, piece: dict[str, Any], row_of: RowOf) -> Iterator[dict[str, Any]]:
        # with `input.jpg` in the recipe, member names begin after the first dot of a file name; `caption.en` is a JSON path
        known = IMAGE_EXTENSIONS | UNREAD_IMAGE_EXTENSIONS | set(TEXT_EXTENSIONS)
        dotted = any(stem and ending in known for stem, _, ending in (_plain(n).rpartition(".") for n in self._members()))
        return tar_rows(piece["path"], piece["name"], row_of, longer_names=not dotted)

    def _members(self) -> list[str]:
        return [*self.caption, *self._images()]

    def _images(self) -> list[str]:
        return [self.image] if isinstance(self.image, str) else self.image or []

    def row(self, sample: SampleMembers, blob: str | None, read: Read) -> dict[str, Any]:
        """Return the row of a sample. Images stay in `blob`, the path of the tar. If `blob` is None, the row holds their bytes.

        Raises BadSample if the sample cannot become a row.
        """
        parts = dict(sample.members)
        described = _named(parts, ["json"])
        facts: Any = sample_json(parts[described[0]] if len(described) == 1 else None, read)
        facts = {} if facts is None else facts if isinstance(facts, dict) else turns_alone(facts) or {"json": facts}
        if _has_lists(facts, "texts", "metadata") and not self._beside(parts, facts):
            return _document(sample, parts, facts, blob, read)
        pictures = self._pictures(parts)
        is_plain = self.image is None and self.caption == list(CAPTION_EXTENSIONS) and not _named(parts, self.caption)
        turns = is_plain and holds_turns(facts)
        if not pictures and not turns:
            return reject({"extra": _extra(sample.key, facts, facts)}, "no_image")
        captions = [*self._captions(sample.key, parts, facts, read), *_texts(facts.get("alternatives"))]
        if turns and not one_text(captions)[0]:
            return _conversation(sample, parts, pictures, facts, blob, read)
        if not one_text(captions)[0]:
            if len(described) > 1:
                raise BadSample(f"it has several JSON members ({', '.join(described[:9])}) and no caption", "several_captions")
            if _has_lists(facts, "texts", "metadata") or _has_lists(facts, "texts", "images"):
                problem = "its JSON holds a document as lists of texts and images. Read the tar with `interleaved_tars`"
                raise BadSample(problem, "no_caption")
        images = [_image(member, blob, read) for member in pictures]
        if len(images) == 1:
            row = with_grounding(pair({**images[0], **stated_fields(facts)}, captions, origins=origins_in(facts)), facts)
        else:
            row = captioned(images, captions, origins=origins_in(facts), url=stated_fields(facts).get("url"))
        rest = unstated_fields(facts, sample.key, row, images[0] if len(images) == 1 else {})
        return {**row, "extra": _extra(sample.key, facts, rest)}

    def _beside(self, parts: Mapping[str, Member], facts: Mapping[str, Any]) -> set[str]:
        """Return the names of the image and caption members that the JSON's `metadata` does not name.

        A document from vlmdata has no such member.
        """
        named = {str(entry.get("file")).lower() for entry in facts["metadata"] if isinstance(entry, dict)}
        endings = IMAGE_EXTENSIONS | UNREAD_IMAGE_EXTENSIONS | set(CAPTION_EXTENSIONS)
        found = {name for name in parts if name.rpartition(".")[2] in endings}
        return {*found, *_named(parts, self._members())} - named

    def _pictures(self, parts: Mapping[str, Member]) -> list[Member]:
        """Return the image members that the recipe names. If it names none, return all images that can be decoded.

        If no image can be decoded, return the images in other formats, so that the row is dropped with their reason.
        """
        if self.image is not None:
            return [parts[name] for name in _named(parts, self._images())]
        endings = {name: name.rpartition(".")[2] for name in parts}
        pictures = [name for name in parts if endings[name] in IMAGE_EXTENSIONS]
        return [parts[name] for name in pictures or [name for name in parts if endings[name] in UNREAD_IMAGE_EXTENSIONS]]

    def _captions(self, key: str, parts: Mapping[str, Member], facts: Mapping[str, Any], read: Read) -> list[str]:
        """Return a sample's captions: those in the first member or JSON field that `caption` names, if they are not all blank.

        If there is none, the only member whose name ends in an entry of `caption` is used. In a sample from vlmdata or
        img2dataset (its JSON holds the sample's `key`), the first named member is used even if it is blank, unless the recipe
        sets `caption`. Raises BadSample if the names of several members end in an entry of `caption`, if the caption that the
        recipe names is missing, or if a caption cannot be read.
        """
        is_default = self.caption == list(CAPTION_EXTENSIONS)
        fault: BadSample | None = None
        for name in self.caption:
            if member := parts.get(_plain(name)):
                if is_default and is_own_sample(facts, key):
                    own = own_caption(facts, member_bytes(read, member, MAX_CAPTION))
                    if own is not None:
                        return [own]
                found = self._text(name, member, read)
                if is_default and facts.get("key") == key:
                    return found
            else:
                found, wrong = _json_captions(name, facts)
                fault = fault or wrong
            if not all(map(is_blank, found)):
                return found
        others = [name for name in _named(parts, self.caption) if "." in name and name not in map(_plain, self.caption)]
        if len(others) > 1:
            several = f"it has several captions ({', '.join(others[:9])}). Set `caption` to one of them"
            raise BadSample(several, "several_captions")
        found = [text for name in others for text in self._text(name, parts[name], read)]
        if all(map(is_blank, found)):
            if fault is not None:
                raise fault
            if self.caption and not is_default:
                raise BadSample(f"it has no caption named {' or '.join(self.caption)}", "no_caption")
        return found

    def _text(self, name: str, member: Member, read: Read) -> list[str]:
        try:
            found, reason = texts_in(caption_text(member_bytes(read, member, MAX_CAPTION), self.encoding))
        except UnicodeDecodeError as error:
            raise BadSample(f"its caption '{name}' cannot be decoded: {error}", "bad_encoding") from None
        if reason is not None:
            raise BadSample(f"its caption '{name}' holds an unpaired surrogate", reason)
        return found


def _plain(name: str) -> str:
    """Return a member name from a recipe in the form that samples use: `.TXT` becomes `txt`."""
    return name.lstrip(".").lower()


def _named(parts: Mapping[str, Member], names: Sequence[str]) -> list[str]:
    """Return the members with these names, in the order of `names`.

    If there are none, return the members whose names end in one of `names`.
    """
    plain = [_plain(name) for name in names]
    return [name for name in plain if name in parts] or [
        name for name in parts if name.endswith(tuple(f".{ending}" for ending in plain))
    ]


def _json_captions(name: str, facts: Mapping[str, Any]) -> tuple[list[str], BadSample | None]:
    """Return the captions in a field (or dotted path) of a sample's JSON, and the error or None."""
    found, reason = texts_in(value_at(facts, name, NO_TEXT))
    if reason is None:
        return found, None
    problem = f"the field '{name}' of its JSON is not usable text. To read a field inside it, set `caption` to a dotted path"
    return [], BadSample(problem, reason)


def _has_lists(facts: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(facts.get(name), list) for name in names)


def _texts(value: object) -> list[str]:
    """Return the strings in a list, or [] for any other value. Raises BadSample if a string holds an unpaired surrogate."""
    found = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    if any(clean(text) != text for text in found):
        raise BadSample("its JSON holds a text with an unpaired surrogate", "bad_encoding")
    return found


def _shards_of(path: str) -> str:
    """Return `path`. If it is a dataset from vlmdata, return a glob of the tars that are directly in `path`.

    The folder `work/` of such a dataset holds the same samples again.
    """
    is_dataset = _holds_manifest if is_remote(path) else os.path.isfile
    return f"{path.rstrip('/')}/*.tar" if is_dataset(f"{os.path.expanduser(path).rstrip('/')}/manifest.json") else path


def _holds_manifest(address: str) -> bool:
    try:
        import fsspec

        fs, inside = fsspec.url_to_fs(address)
        return fs.isfile(inside)
    except (OSError, ValueError, ImportError):
        return False  # `find` raises the error


def _image(member: Member, blob: str | None, read: Read) -> dict[str, Any]:
    data = member_bytes(read, member, MAX_IMAGE)
    return inline(data) if blob is None else in_place(blob, member.offset, data)


def _fits(facts: Mapping[str, Any]) -> bool:
    """Return whether the lists in a sample's JSON are aligned as in vlmdata's documents: a text or an image per position."""
    lists: list[Any] = [facts.get(name) for name in ("texts", "metadata", "images")]
    lists += [facts[name] for name in ("alternatives", "roles") if facts.get(name) is not None]
    if not all(isinstance(some, list) and 0 < len(some) == len(facts["texts"]) for some in lists):
        return False
    return all(map(_fit, *lists[:3])) and all(
        others is None or (text is not None and isinstance(others, list) and all(isinstance(one, str) for one in others))
        for text, others in zip(facts["texts"], facts.get("alternatives") or (), strict=False)
    )


def _fit(text: Any, metadata: Any, url: Any) -> bool:
    if text is not None:
        return isinstance(text, str) and metadata is None and url is None
    return isinstance(metadata, dict) and isinstance(metadata.get("file"), str) and isinstance(url, str | None)


def _document(sample: SampleMembers, parts: Mapping[str, Member], facts: Any, blob: str | None, read: Read) -> dict[str, Any]:
    """Return the row of a document written by vlmdata. Raises BadSample if its lists do not align."""
    if not _fits(facts):
        raise BadSample("the lists `texts`, `images` and `metadata` in its JSON are not aligned")
    roles, url = facts.get("roles"), facts.get("url")
    columns = _conversation_columns(facts, roles) if roles else {}
    texts = [_texts([text])[0] if text is not None else None for text in facts["texts"]]
    entries = zip(facts["metadata"], facts["images"], strict=True)
    images = [_image_of(entry, address, parts, blob, read) for entry, address in entries]
    positions = [text if image is None else image for text, image in zip(texts, images, strict=True)]
    row = document(positions, url=clean(url) if isinstance(url, str) else None, **columns)
    for text, others, origins in zip(row["texts"], facts.get("alternatives") or (), document_origins(facts), strict=False):
        if text is not None:
            text |= {"alternatives": _texts(others) or None, "origins": origins}
    for text, grounding in zip(row["texts"], document_groundings(facts, row) or (), strict=False):
        if text is not None:
            text["grounding"] = grounding
    row["extra"] = _extra(sample.key, facts, unstated_document_fields(facts, sample.key, row))
    found = [image for image in images if image]
    return reject(row, found[0].get("reason") if found and all(image.get("reason") for image in found) else None)


def _conversation(
    sample: SampleMembers, parts: Mapping[str, Member], pictures: Sequence[Member], facts: Any, blob: str | None, read: Read
) -> dict[str, Any]:
    """Return the row of a sample whose JSON holds turns in LLaVA's or OpenAI's form. The trainer uses the same rules."""
    own = Members((name for name, member in parts.items() if member in pictures), sample.key)

    def shown(where: Any) -> dict[str, Any]:
        image = own.find(where)
        return {**_image(parts[image.pop("member")], blob, read), **image} if "member" in image else image

    record = {**facts, **own.in_order(facts)}
    try:
        found = read_dialogue(record, TURNS, IMAGES, shown, otherwise=[_image(parts[name], blob, read) for name in own.names])
    except Unfit as error:
        return reject({"extra": _extra(sample.key, facts, facts)}, str(error))
    images = [part for message in found.messages for part in message.parts if isinstance(part, dict)]
    used = found.used | keep_addresses(images, facts)
    rest = {name: value for name, value in facts.items() if name not in used}
    return conversation(found.messages, tools=found.tools, extra=_extra(sample.key, facts, rest))


def _conversation_columns(facts: Mapping[str, Any], roles: list[Any]) -> dict[str, Any]:
    """Return the row's columns `roles`, `turns` and `tools`. Raises BadSample if one of them is invalid."""
    if not all(isinstance(role, str) for role in roles):
        raise BadSample("a role in its JSON is not a string")
    try:
        turns, tools = checked_turns(facts.get("turns"), roles), checked_tools(facts.get("tools"))
        said = None if turns is None else [one and json_text(one, "bad_turns") for one in turns]
        return {"roles": roles, "turns": said, "tools": None if tools is None else json_text(tools, "bad_tools")}
    except Unfit as error:
        raise BadSample("the roles, turns or tools in its JSON do not have the form that vlmdata writes", str(error)) from None


def _image_of(
    metadata: Mapping[str, Any] | None, url: str | None, parts: Mapping[str, Member], blob: str | None, read: Read
) -> dict[str, Any] | None:
    """Return the image that `metadata` names. `metadata` is one entry of a document's list.

    Return None for a null entry, because its position holds a text.
    """
    if metadata is None:
        return None
    member = parts.get(metadata["file"].lower())
    image = {"drop": "source", "reason": "no_image"} if member is None else _image(member, blob, read)
    return {**image, **stated_fields({**metadata, "url": url})}


def _extra(key: str, facts: Mapping[str, Any], rest: Mapping[str, Any]) -> str:
    return clean(json_object(with_origin(rest, facts, key, source_key=key)))
