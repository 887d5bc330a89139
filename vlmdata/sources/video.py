"""Videos as rows of frames with times: video files, tars of videos, or lists of addresses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers import lists
from vlmdata.readers.captions import named_columns
from vlmdata.readers.column_types import ADDRESS, CAPTION
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.image_files import Folder
from vlmdata.readers.lists import ListFormat
from vlmdata.readers.nameable_files import folder_of
from vlmdata.readers.plain_rows import tables
from vlmdata.readers.strings import check_encoding
from vlmdata.readers.tar_samples import ENDINGS as TARS
from vlmdata.readers.tar_samples import names_within
from vlmdata.safe_path import Refused, real_path_inside
from vlmdata.step import RecipeError, Source
from vlmdata.video import containers
from vlmdata.video.beside import Beside, Neighbours, Read, read_beside
from vlmdata.video.decoder import Decoder, Place
from vlmdata.video.fetch_videos import VideoFetcher
from vlmdata.video.listed_videos import ListedVideos
from vlmdata.video.rows import About, dropped, video_rows
from vlmdata.video.settings import FrameSettings, Scenes, VideoError
from vlmdata.video.tars import tar_videos
from vlmdata.web.options import WebOptions

FILES, BYTES = 50, 1 << 30  # most files of a piece, and their bytes
ADDRESSES = 100  # addresses in a piece


@dataclass(frozen=True, kw_only=True)
class Video(Source):
    """Yield one row for each video: its frames with their times, and its subtitles as texts between them.

    `path` names video files, tars of videos, or folders of both. With `url` it names lists of addresses. Files with the video's
    name hold a caption (`.txt`), facts (`.json`) and subtitles (`.srt`, `.vtt`, `.ass`), also in a tar. With `clip_s` a video
    gives a row for each part of this length. Videos are decoded in a process of their own, in which FFmpeg can open no other
    file. A video that cannot be used is a dropped row; docs/video.md lists the reasons.
    """

    id: ClassVar = "vlmdata.sources.video"
    example: ClassVar = "source: {type: video, path: videos, every_s: 2, clip_s: 60}"
    gives: ClassVar = "documents"
    packages: ClassVar = ("av",)
    shuffled: ClassVar[bool] = False

    path: Annotated[
        str | list[str],
        Doc("Videos, tars of videos, or folders or globs of them, local or on any store that fsspec knows. With `url`: lists."),
    ]
    every_s: Annotated[
        float,
        Doc(
            "Take the frame that is shown at each multiple of this time. If that gives more than `max_frames`, the frames are "
            "farther apart.",
            unit="seconds",
            source="Flamingo, one frame a second",
        ),
    ] = 1.0
    count: Annotated[
        int | None, Doc("Take this many frames, evenly spread over the video or clip, instead of `every_s`.", unit="frames")
    ] = None
    scenes: Annotated[
        Scenes,
        Doc(
            "Take the first or the middle frame of each scene instead. A scene begins where the content changes as in "
            "PySceneDetect's ContentDetector, with threshold 27, and lasts at least 0.6 s."
        ),
    ] = "none"
    clip_s: Annotated[
        float | None, Doc("Divide a video into rows of this length. null: one row for each video.", unit="seconds")
    ] = None
    max_frames: Annotated[int, Doc("Most frames of a row.", unit="frames", source="Qwen2.5-VL")] = 768
    min_distance: Annotated[
        int,
        Doc(
            "A frame whose PDQ hash differs in fewer bits from the last kept frame is left out. 0: every frame is kept.",
            unit="bits, 0 to 256",
            source="PDQ, whose authors count up to 31 bits as the same picture",
        ),
    ] = 32
    size: Annotated[
        int, Doc("Longer side of a stored frame. A smaller frame is not enlarged.", unit="pixels", source="vlmdata's choice")
    ] = 768
    format: Annotated[Literal["jpeg", "png"], Doc("Format of the stored frames.")] = "jpeg"
    quality: Annotated[int, Doc("Quality of JPEG.", unit="1 to 100", source="vlmdata's choice")] = 90
    subtitles: Annotated[bool, Doc("Whether subtitles become texts: a file beside the video, or else a track in it.")] = True
    language: Annotated[str, Doc("Start of the language of the subtitles, such as en. Empty: the default track.")] = ""
    encoding: Annotated[str, Doc("Encoding of texts beside videos and of lists. A byte order mark overrides it.")] = "utf-8"
    max_pixels: Annotated[
        int,
        Doc("Pixels of a frame. A larger video is dropped as `too_many_pixels`.", unit="pixels", source="8K has 33 million"),
    ] = 40_000_000
    max_cost: Annotated[
        int,
        Doc(
            "Cost of decoding a video: its decoded pixels in millions, 0.05 for each frame and 0.002 for each packet. A "
            "video that costs more is dropped as `too_costly`.",
            unit="millions of pixels",
            source="vlmdata's choice: two hours of 1920 x 1080",
        ),
    ] = 400_000
    max_memory_mb: Annotated[
        int,
        Doc(
            "Memory to decode a video. A video that needs more is dropped as `too_large`.",
            unit="MB (1,000,000 bytes)",
            source="vlmdata's choice: 8K needs about 1,000",
        ),
    ] = 2_000
    url: Annotated[
        str, Doc("Column of addresses in lists. A text file has one address per line. Empty: `path` has videos.")
    ] = ""
    caption: Annotated[str | list[str], Doc("Columns of captions in lists.")] = ""
    max_bytes: Annotated[int, Doc("Size of the largest video that is fetched.", unit="bytes", source="vlmdata's choice")] = (
        1_000_000_000
    )
    timeout_s: Annotated[float, Doc("Time to fetch a video.", unit="seconds", source="vlmdata's choice")] = 600.0
    contact: Annotated[str, Doc("Mail address or page of the operator, sent with each request.")] = ""
    robots: Annotated[bool, Doc("Whether to obey robots.txt (RFC 9309).")] = True
    host_requests_per_s: Annotated[
        float,
        Doc(
            "Rate of requests to one host. Each worker fetches one video at a time.",
            unit="requests per second",
            source="vlmdata's choice",
        ),
    ] = 2.0
    blocked_domains: Annotated[tuple[str, ...], Doc("Domains that get no request. This includes their subdomains.")] = ()
    allowed_hosts: Annotated[
        tuple[str, ...], Doc('Hosts that are allowed to have a private address: "name", "127.0.0.1" or "name:8080".')
    ] = ()

    def check(self) -> None:
        check_encoding(self.encoding)
        positive = ("every_s", "count", "clip_s", "max_frames", "size", "max_pixels", "max_cost", "max_memory_mb")
        if wrong := next((name for name in positive if (value := getattr(self, name)) is not None and value <= 0), None):
            raise RecipeError(f"{wrong} must be above 0, not {getattr(self, wrong)}")
        if self.count is not None and self.scenes != "none":
            raise RecipeError("`count` and `scenes` are two ways to choose frames. Remove one of them")
        if not 0 <= self.min_distance <= 256:
            raise RecipeError(f"min_distance must be 0 to 256, not {self.min_distance}")
        if not 1 <= self.quality <= 100 or self.size > 16383:
            raise RecipeError("quality must be 1 to 100, and size at most 16383")
        files = self.files()
        if not self.url:
            if self.caption:
                raise RecipeError(
                    "`caption` names columns of lists, and needs `url`. Captions of files lie in .txt files beside them"
                )
            return
        self._web()
        contents = {self.url: ADDRESS, **dict.fromkeys(named_columns(self.caption), CAPTION)}
        for path in lists.checked_files(files, lambda path: lists.format_of(path, self._layout())):
            if lists.format_of(path, self._layout()) != "txt":
                lists.check_file(path, self._layout(), list(contents), contents, keeps_all=True)

    def files(self) -> list[File]:
        return find(self.path, lists.ENDINGS if self.url else (*containers.ENDINGS, *TARS))

    def pieces(self) -> list[dict[str, Any]]:
        files = self.files()
        named = list(zip(files, names_within(files), strict=True))
        if self.url:
            return [
                {"path": file.path, "name": name, "start": start}
                for file, name in named
                for start in range(0, self._listed(file.path, name).count(), ADDRESSES)
            ]
        found: list[dict[str, Any]] = []
        left = 0
        for file, name in named:
            if file.path.lower().endswith(TARS):
                found.append({"path": file.path, "name": name})
                continue
            if not found or "videos" not in found[-1] or len(found[-1]["videos"]) == FILES or file.size > left:
                found.append({"videos": []})
                left = BYTES
            found[-1]["videos"].append([file.path, name])
            left -= file.size
        return found

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(self._rows(piece))

    def _rows(self, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with Decoder(self._settings()) as decoder:
            if "videos" in piece:
                yield from self._loose(decoder, piece["videos"])
            elif self.url:
                yield from self._fetched(decoder, piece)
            else:
                yield from tar_videos(piece["path"], piece["name"], decoder, self._beside, self.clip_s)

    def _loose(self, decoder: Decoder, videos: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        paths = [self.path] if isinstance(self.path, str) else self.path
        roots = [folder_of(path, containers.ENDINGS) for path in paths]
        neighbours = Neighbours(Folder(roots))
        for path, name in videos:
            about = About(name, name)
            try:
                _check_inside(path, roots)
                captions, facts, said = self._beside(neighbours.of(path))
            except VideoError as error:
                yield dropped(about, error)
                continue
            about = About(name, name, captions=captions, facts=facts, beside=said)
            yield from video_rows(decoder, Place(path), about, self.clip_s)

    def _fetched(self, decoder: Decoder, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with VideoFetcher(self._web()) as fetcher:
            listed = self._listed(piece["path"], piece["name"])
            for row in listed.rows(piece["start"], piece["start"] + ADDRESSES):
                if isinstance(row, dict):
                    yield row
                    continue
                try:
                    with fetcher.fetched(row.url or "") as path:
                        yield from video_rows(decoder, Place(path), row, self.clip_s)
                except VideoError as error:
                    yield dropped(row, error)

    def _settings(self) -> FrameSettings:
        return FrameSettings(
            every_s=self.every_s, count=self.count, scenes=self.scenes, clip_s=self.clip_s, max_frames=self.max_frames,
            size=self.size, format=self.format, quality=self.quality, min_distance=self.min_distance, subtitles=self.subtitles,
            language=self.language, max_pixels=self.max_pixels, max_cost=self.max_cost, max_memory_mb=self.max_memory_mb,
        )  # fmt: skip

    def _beside(self, parts: Mapping[str, Read]) -> Beside:
        return read_beside(parts, encoding=self.encoding, with_subtitles=self.subtitles, language=self.language)

    def _layout(self) -> ListFormat:
        return ListFormat(encoding=self.encoding)

    def _listed(self, path: str, name: str) -> ListedVideos:
        return ListedVideos(path, name, self._layout(), self.url, tuple(named_columns(self.caption)))

    def _web(self) -> WebOptions:
        """Return the options of the web client. Each worker has one transfer at a time, so hosts have one for each worker."""
        return WebOptions(
            contact=self.contact, max_bytes=self.max_bytes, timeout_s=self.timeout_s, connections=1, robots=self.robots,
            host_requests_per_s=self.host_requests_per_s, blocked_domains=self.blocked_domains,
            allowed_hosts=self.allowed_hosts,
        )  # fmt: skip


def _check_inside(path: str, roots: Sequence[str]) -> None:
    """Raise VideoError for a file in the source's folders that is a link to another place."""
    if is_remote(path):
        return
    for root in roots:
        try:
            if os.path.isfile(real_path_inside(path, root)):
                return
        except Refused:
            continue
    raise VideoError("outside_folder", "the link leads to a file outside the folder")
