"""What is known of an image before a pixel is decoded, and the one error that says why an image was refused."""

from dataclasses import dataclass

REASONS = {
    "empty": "no bytes",
    "not_an_image": "the bytes are a page, a text, a drawing in SVG or nothing known",
    "unsupported_format": "an image of a kind that is not read here (HEIC, JPEG XL, BigTIFF, 12-bit JPEG, float pixels ...)",
    "truncated": "the data end before the picture does",
    "corrupt": "the data contradict themselves or the decoder refused them",
    "too_many_pixels": "width times height is over the cap",
    "too_many_scans": "a progressive JPEG of so many scans that decoding it is an attack",
}


class ImageError(Exception):
    """An image that cannot be used: `.reason` is one of REASONS, for the ledger; the message is for a reader."""

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail or REASONS[reason]}")
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """Facts from the first bytes of an image. Width and height are in pixels as stored, before `orientation` (EXIF, 1..8).

    `mode` is one of grey, grey_alpha, rgb, rgb_alpha, palette, ycc, cmyk; `bit_depth` is bits per channel.
    `icc` is the colour profile of a JPEG; decoders of other formats find theirs themselves.
    `coded_pixels` is what a decoder takes memory for, where the data inside may say more than the container (AVIF).
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

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the picture as it is to be seen, after orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)
