"""What is known of an image before a pixel is decoded, and the one error that says why an image was refused."""

from dataclasses import dataclass

REASONS = {
    "empty": "no bytes",
    "not_an_image": "the bytes are a page, a text, a drawing in SVG or nothing known",
    "unsupported_format": "an image of a kind that is not read here (HEIC, JPEG XL, BigTIFF, 12-bit JPEG, float pixels ...)",
    "truncated": "the data end before the picture does",
    "corrupt": "the data contradict themselves or the decoder refused them",
    "too_large": "decoding it would take more memory than it may: estimated MB against the limit in MB",
    "too_costly": "decoding it and the images before it in its row would take too long: units of cost against the limit",
    "too_many_pixels": "width times height, of the image or of what a resize makes of it, is over the cap",
    "too_many_scans": "a progressive JPEG of so many scans that decoding it is an attack",
}


class ImageError(Exception):
    """An image that cannot be used: `.reason` is one of REASONS, for the ledger; the message is for a reader.

    Where a limit was passed, `.value` is what the image would have taken and `.threshold` the limit, in the reason's unit.
    """

    def __init__(self, reason: str, detail: str = "", *, value: float | None = None, threshold: float | None = None) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail or REASONS[reason]}")
        self.reason, self.value, self.threshold = reason, value, threshold


@dataclass(frozen=True)
class ImageHeader:
    """Facts from the first bytes of an image. Width and height are in pixels as stored, before `orientation` (EXIF, 1..8).

    `mode` is one of grey, grey_alpha, rgb, rgb_alpha, palette, ycc, cmyk; `bit_depth` is bits per channel.
    `icc` is the colour profile of a JPEG or a WebP; decoders of other formats find theirs themselves.
    `coded_pixels` is what a decoder takes memory for, where the data inside may say more than the container (AVIF).
    `held_bytes` is what it holds beside the pixels: coefficients of a JPEG of several scans, planes of an AVIF, texts of a
    PNG, a strip of a TIFF. `passes` is how often it goes over the whole picture: the scans of a JPEG.
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
        """Width and height of the picture as it is to be seen, after orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
