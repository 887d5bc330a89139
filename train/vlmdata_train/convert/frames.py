"""The frames of a video that the part `video` of a recipe and a video processor of transformers choose, in both directions."""

from __future__ import annotations

from typing import Any

from vlmdata_train.convert.served import FILTERS
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.parts import make_part
from vlmdata_train.videos import Sampled, Spacing


def choice_of(videos: Any, spacing: Spacing) -> dict[str, Any]:
    """Return the parameters with which a video part chooses the frames of a processor.

    A processor with a number of frames ignores its rate. One with neither reads all frames.
    """
    return {"fps": None if videos.num_frames is not None else videos.fps, "count": videos.num_frames, "spacing": spacing}


def frames_of(videos: Any, spacing: Spacing) -> dict[str, Any]:
    """Return the parameters of a video part for a processor that resizes each frame to a square."""
    return {**choice_of(videos, spacing), "preprocessing": {"resize": {"resample": FILTERS[int(videos.resample)]}}}


def choice_options(part: Sampled) -> dict[str, Any]:
    """Return the options with which a processor chooses the frames of a video part."""
    return {"fps": part.fps, "num_frames": part.count, "do_sample_frames": (part.fps, part.count) != (None, None)}


def frame_options(plan: ImagePlan) -> dict[str, Any]:
    """Return the options of a processor for a plan's video part that prepares frames like images: its choice and its filter.

    There are none for a plan without such a part.
    """
    part = plan.video
    if getattr(part, "preprocessing", None) is None:
        return {}
    resample = make_part("preprocessing", part.preprocessing).resample
    return {**choice_options(part), "resample": FILTERS.index(resample)}
