"""The frame of each preprocessing says where its pixels are: a rectangle is drawn, prepared and found in the tiles again."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from vlmdata.grounding.frame import Frame
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.parts import make_part, part_names
from vlmdata_train.preprocessing.dynamic_tiles import nearest_grid
from vlmdata_train.preprocessing.slices import slice_grid

SIDE = 56
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FACTS = EncoderFacts(width=8, image_size=SIDE, patch_size=14, mean=MEAN, std=STD)
SIZES = [(120, 77), (77, 120), (300, 100), (90, 250), (171, 170), (40, 30)]  # width, height
BOXES = [(0.3, 0.2, 0.7, 0.6), (0.0, 0.5, 0.35, 1.0), (0.85, 0.1, 1.0, 0.4)]  # the last is often outside of a centre crop
# parts whose frame is the image without padding, since their copies of the image have different padding
UNPADDED = ("anyres", "overlapping_crops")
CASES: dict[str, dict[str, Any]] = {
    "resize": {}, "pad": {}, "centre_crop": {}, "resize_pad": {}, "native": {"max_height": 90, "max_width": 110},
    "smart_size": {"min_pixels": 28 * 28 * 2, "max_pixels": 28 * 28 * 12}, "longest_edge": {"longest": 112},
    "edges": {"shortest": 42, "longest": 112}, "anyres": {}, "dynamic_tiles": {}, "square_tiles": {"longest": 4 * SIDE},
    "tiles_by_aspect": {}, "overlapping_crops": {"margin": 1}, "paired_crops": {"margin": 1}, "slices": {"side": 56},
    "hd_crops": {},
}  # fmt: skip
MORE: list[tuple[str, dict[str, Any]]] = [
    ("edges", {"shortest": 42, "longest": 112, "split": True}), ("anyres", {"tiles": ()}),
    ("overlapping_crops", {"margin": 1, "keep_aspect": False, "antialias": False}),
]  # fmt: skip
ALL = [*CASES.items(), *MORE]


def drawn(width: int, height: int, box: tuple[float, float, float, float]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Draw a red rectangle on grey. Return the picture and the rectangle that was drawn, as fractions."""
    image = np.full((height, width, 3), 128, np.uint8)
    x0, y0, x1, y1 = round(box[0] * width), round(box[1] * height), round(box[2] * width), round(box[3] * height)
    image[y0:y1, x0:x1] = (255, 0, 0)
    return image, (x0 / width, y0 / height, x1 / width, y1 / height)


def extent(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Return x0, y0, x1, y1 of the true pixels, or None if there are none."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def joined(tiles: list[np.ndarray], rows: int, columns: int, step: int | None = None) -> np.ndarray:
    """Put tiles together, row by row. With `step`, tiles overlap: their corners are `step` pixels apart."""
    high, wide = tiles[0].shape[:2]
    down, across = (step, step) if step is not None else (high, wide)
    canvas = np.zeros((down * (rows - 1) + high, across * (columns - 1) + wide, 3), np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * down, number % columns * across
        canvas[y : y + high, x : x + wide] = tile
    return canvas


def views(name: str, part: Any, tiles: list[np.ndarray], width: int, height: int) -> Iterator[np.ndarray]:
    """Yield each picture of the whole image that the tiles show: an overview, or the tiles put together."""
    if name in ("anyres", "overlapping_crops", "paired_crops", "slices", "hd_crops"):
        yield tiles.pop(0)
    elif name in ("dynamic_tiles", "square_tiles", "edges") and len(tiles) > 1:
        yield tiles.pop()
    if not tiles or (name == "edges" and len(tiles) > 1):
        return  # the quarters are resized one by one, so they cannot be put together
    if name in ("overlapping_crops", "paired_crops"):
        yield joined(tiles, *part.crops(width, height, FACTS), step=SIDE - 2 * part.margin * FACTS.patch_size)
    elif name == "hd_crops":
        yield joined(tiles, *part.crops(width, height, SIDE))
    elif name == "slices":
        grid = slice_grid(width, height, part.side, part.max_slices)
        assert grid is not None
        yield joined(tiles, *grid)
    elif name == "dynamic_tiles":
        yield joined(tiles, *nearest_grid(width, height, SIDE, part.min_tiles, part.max_tiles))
    elif name == "tiles_by_aspect":
        yield joined(tiles, *part.tile_grid(width, height, FACTS))
    elif name in ("anyres", "square_tiles"):
        places = [(rows, len(tiles) // rows) for rows in range(1, len(tiles) + 1) if len(tiles) % rows == 0]
        yield joined(tiles, *min(places, key=lambda grid: abs(np.log(grid[1] / grid[0] * height / width))))
    else:
        yield tiles[0]


def test_every_preprocessing_is_measured() -> None:
    assert sorted(CASES) == part_names("preprocessing")


@pytest.mark.parametrize(("name", "options"), ALL, ids=[f"{name}-{number}" for number, (name, _) in enumerate(ALL)])
def test_the_frame_is_where_the_pixels_are(name: str, options: dict[str, Any]) -> None:
    part = make_part("preprocessing", {name: options})
    for width, height in SIZES:
        for box in BOXES:
            image, exact = drawn(width, height, box)
            tiles = [tile.permute(1, 2, 0).numpy() for tile in part.prepare(image, FACTS)]
            frame = part.frame(width, height, FACTS)
            assert isinstance(frame, Frame)
            seen = list(views(name, part, tiles, width, height))
            assert seen
            for view in seen:
                check(name, view, frame.box(exact))


def check(name: str, view: np.ndarray, expected: Any) -> None:
    """Compare the red rectangle in a picture with the box of a frame, at a tolerance of 1.5 pixels for each edge."""
    pixels = view.astype(int)
    left, top, right, bottom = 0, 0, view.shape[1], view.shape[0]
    if name in UNPADDED:
        found = extent(pixels.max(2) > 64)  # the padding is black
        assert found is not None
        left, top, right, bottom = found
    red = extent(pixels[:, :, 0] - pixels[:, :, 1:].max(2) > 127)
    if expected is None:
        assert red is None
        return
    (x0, y0, x1, y1), _ = expected
    edges = (
        left + x0 * (right - left), top + y0 * (bottom - top), left + x1 * (right - left), top + y1 * (bottom - top)
    )  # fmt: skip
    if red is None:  # a sliver at the edge of a crop
        assert min(edges[2] - edges[0], edges[3] - edges[1]) < 1
        return
    assert np.abs(np.array(edges) - red).max() <= 1.5


def test_a_centre_crop_says_how_much_of_a_box_is_left() -> None:
    frame = make_part("preprocessing", "centre_crop").frame(200, 100, FACTS)
    assert frame.box((0.0, 0.0, 0.2, 1.0)) is None
    found = frame.box((0.0, 0.0, 0.5, 1.0))
    assert found is not None and found[1] == pytest.approx(0.5)


def test_towers_of_different_sizes_see_the_same_frame() -> None:
    facts = EncoderFacts(8, SIDE, 14, MEAN, STD, towers=(FACTS, EncoderFacts(8, 28, 14, MEAN, STD)))
    part = make_part("preprocessing", "resize_pad")
    image, exact = drawn(120, 60, BOXES[0])
    for tile in part.prepare(image, facts):
        check("resize_pad", tile.permute(1, 2, 0).numpy(), part.frame(120, 60, facts).box(exact))


def test_images_of_a_sample_with_several_have_their_own_frame() -> None:
    part = make_part("preprocessing", {"anyres": {"several": "pad"}})
    plan = ImagePlan(FACTS, part, None, None, None)
    assert plan.frame(120, 60).box((0.0, 0.0, 1.0, 1.0)) == ((0.0, 0.0, 1.0, 1.0), 1.0)
    found = plan.frame(120, 60, several=True).box((0.0, 0.0, 1.0, 1.0))
    assert found is not None and found[0] == pytest.approx((0.0, 0.25, 1.0, 0.75))


def test_a_preprocessing_without_frames_is_named() -> None:
    with pytest.raises(ValueError, match="preprocessing: object has no method `frame`"):
        ImagePlan(FACTS, object(), None, None, None).frame(10, 10)
