"""What is known of an image before it is decoded, and the error that says why an image is refused."""

from dataclasses import dataclass

REASONS = {
    "empty": "no bytes",
    "not_an_image": "the bytes are a page, a text, an SVG drawing or of an unknown format",
    "unsupported_format": "an image of an unsupported format (HEIC, JPEG XL, BigTIFF, 12-bit JPEG, float pixels ...)",
    "truncated": "the data end before the image is complete",
    "corrupt": "the data are inconsistent, or the decoder refused them",
    "too_large": "decoding would take more memory than the limit allows: estimated MB and limit in MB",
    "too_costly": "decoding it and the earlier images of its row would take too long: units of cost and their limit",
    "too_many_pixels": "width times height, of the image or of its resized version, is over the limit",
    "too_many_scans": "a progressive JPEG with so many scans that decoding it is an attack",
}


class ImageError(Exception):
    """An unusable image. `.reason` is one of REASONS, for the ledger; the message is for people.

    If a limit was exceeded, `.value` is the image's value and `.threshold` the limit, in the reason's unit.
    """

    def __init__(self, reason: str, detail: str = "", *, value: float | None = None, threshold: float | None = None) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail or REASONS[reason]}")
        self.reason, self.value, self.threshold = reason, value, threshold


@dataclass(frozen=True)
class ImageHeader:
    """Facts from the first bytes of an image. Width and height are in pixels as stored, before `orientation` (EXIF, 1..8).

    `mode` is one of grey, grey_alpha, rgb, rgb_alpha, palette, ycc, cmyk; `bit_depth` is bits per channel.
    `icc` is the colour profile of a JPEG or WebP; decoders of other formats read it themselves.
    `coded_pixels` is the number of pixels for which an AVIF decoder allocates memory; it may exceed that of the container.
    `held_bytes` is the decoder's memory besides the pixels: coefficients of a JPEG with several scans, planes of an AVIF,
    texts of a PNG, a strip of a TIFF. `passes` is the number of scans of a JPEG.
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
        """Width and height after orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
