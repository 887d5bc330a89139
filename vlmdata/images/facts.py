"""Facts about an image that are known before it is decoded, and the error that says why an image is refused."""

from dataclasses import dataclass

REASONS = {
    "empty": "there are no bytes",
    "not_an_image": "the bytes are a web page, text, an SVG drawing, or of an unknown format",
    "unsupported_format": "the image has an unsupported format (HEIC, JPEG XL, BigTIFF, 12-bit JPEG, float pixels ...)",
    "truncated": "the data end before the image is complete",
    "corrupt": "the data are inconsistent, or the decoder refused them",
    "too_large": "decoding would take more memory than the limit allows (estimate and limit in MB)",
    "too_costly": "decoding the image after the earlier images of its row takes too long (estimate and limit in units of cost)",
    "too_many_pixels": "the image or its resized version has more pixels than the limit allows",
    "too_many_scans": "the number of scans of the progressive JPEG shows an attack",
}


class ImageError(Exception):
    """Raised for an unusable image. `.reason` is a key of `REASONS`, for the ledger. The message is for people.

    If the image exceeds a limit, `.threshold` is the limit, and `.value` is what the image would need. Both are in MB, units of
    cost or pixels, as `REASONS` states for each reason.
    """

    def __init__(self, reason: str, detail: str = "", *, value: float | None = None, threshold: float | None = None) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail or REASONS[reason]}")
        self.reason, self.value, self.threshold = reason, value, threshold


@dataclass(frozen=True)
class ImageHeader:
    """Facts from the first bytes of an image. Width and height are in pixels as stored, before `orientation` (EXIF, 1..8).

    `mode` is one of grey, grey_alpha, rgb, rgb_alpha, palette, ycc, cmyk; `bit_depth` is bits per channel. `icc` is the colour
    profile of a JPEG or WebP; decoders of other formats read the profile themselves. `coded_pixels` is the number of pixels for
    which an AVIF decoder allocates memory. This number may exceed the pixels of the size that the container states.
    `held_bytes` is the memory of the decoder in addition to the pixels: coefficients of a JPEG with several scans, planes of an
    AVIF, texts of a PNG, or a strip of a TIFF. `passes` is the number of scans of a JPEG.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    is_animated: bool = False
    mode: str = "rgb"
    bit_depth: int = 8
    is_progressive: bool = False
    icc: bytes | None = None
    coded_pixels: int = 0
    held_bytes: int = 0
    passes: int = 1

    @property
    def upright_size(self) -> tuple[int, int]:
        """The (width, height) after the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
