import io

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import saved
from vlmdata.images.decode import decode
from vlmdata.images.face_boxes import as_faces, blur_faces, largest_share, pixels_within
from vlmdata.images.facts import ImageError

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
EDGES = {  # box of a face that extends beyond one edge: the strip of pixels at this edge
    "left": ([-0.1, 0.3, 0.2, 0.7], np.s_[45:75, :8]),
    "top": ([0.3, -0.2, 0.6, 0.2], np.s_[:8, 60:90]),
    "right": ([0.8, 0.3, 1.1, 0.7], np.s_[45:75, -8:]),
    "bottom": ([0.3, 0.8, 0.6, 1.2], np.s_[-8:, 60:90]),
}


@pytest.mark.parametrize("edge", EDGES)
def test_a_face_that_touches_an_edge_is_blurred_up_to_the_edge(edge):
    box, strip = EDGES[edge]
    done = blur_faces(saved(NOISE, "PNG"), as_faces([box]), 95)
    assert done.pixels[strip].std() < NOISE[strip].std() / 8
    far = np.s_[:, -60:] if edge == "left" else np.s_[:, :10]
    assert (done.pixels[far] == NOISE[far]).all()


def test_a_small_face_beside_a_large_one_is_blurred_too():
    faces = [[0.0, 0.0, 0.6, 1.0, 1.0], [0.85, 0.4, 0.93, 0.5, 1.0]]
    small = np.s_[50:58, 138:147]
    assert blur_faces(saved(NOISE, "PNG"), faces, 95).pixels[small].std() < NOISE[small].std() / 3
    assert blur_faces(saved(NOISE, "PNG"), faces[:1], 95).pixels[small].std() > NOISE[small].std() / 1.2


def test_boxes_become_fractions_that_end_at_the_edges():
    boxes = [[-16, 12, 80, 60], [0, 0, 320, 240, 0.98765432], None, [200, 0, 300, 10], [50, 50, 50, 60]]
    assert as_faces(boxes, 160, 120) == [[0.0, 0.1, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0, 0.9877]]
    assert largest_share(as_faces(boxes[:1], 160, 120)) == pytest.approx(0.2)
    assert (as_faces([]), largest_share([])) == ([], 0.0)


NOT_BOXES = [[0, 0, float("nan"), 1], [0, 0, 1], [0, 0, None, 1], [0, 0, float("inf"), 1, 1], [], [0.5, 0.5, 0.2, 0.7]]


@pytest.mark.parametrize("box", NOT_BOXES)
def test_a_box_that_is_no_box_makes_the_faces_unknown(box):
    assert as_faces([[0, 0, 1, 1], box]) is None


def test_an_image_without_faces_stays_and_an_animation_becomes_its_first_frame():
    assert blur_faces(saved(NOISE, "JPEG"), [], 95) is None
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    out = io.BytesIO()
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    done = blur_faces(out.getvalue(), [], 95)
    assert (done.format, decode(done.data).header.is_animated) == ("webp", False)


@pytest.mark.parametrize(
    ("kind", "stored"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "jpeg"), ("BMP", "jpeg")]
)
def test_a_blurred_image_keeps_its_format_if_it_can_be_written(kind, stored):
    done = blur_faces(saved(NOISE, kind), [[0.2, 0.2, 0.4, 0.4, 1.0]], 95)
    assert (done.format, decode(done.data).format, done.data[:3] == b"\xff\xd8\xff") == (stored, stored, stored == "jpeg")


def test_a_rotated_image_is_blurred_upright_and_loses_its_metadata():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "secret"
    data = saved(Image.fromarray(NOISE), "JPEG", exif=exif, quality=95)
    done = blur_faces(data, [[0.0, 0.0, 0.3, 0.3, 1.0]], 95)
    assert (done.width, done.height) == (120, 160) and b"secret" in data and b"secret" not in done.data
    upright = decode(data).pixels
    assert done.pixels[:30, :30].std() < upright[:30, :30].std() / 6 and (done.pixels[100:] == upright[100:]).all()


def test_pixels_for_a_detector_are_bounded_and_upright():
    assert pixels_within(saved(NOISE, "PNG"), 80).shape == (60, 80, 3)
    assert pixels_within(saved(NOISE, "PNG"), 640).shape == (120, 160, 3)
    assert pixels_within(saved(NOISE[:1, :1], "PNG"), 640).shape == (1, 1, 3)
    assert pixels_within(saved(Image.new("L", (50_000, 2)), "PNG"), 640).shape == (1, 640, 3)
    with pytest.raises(ImageError):
        pixels_within(saved(Image.new("1", (30_000, 30_000)), "PNG"), 640)
