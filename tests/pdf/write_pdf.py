"""A small writer of PDFs for tests. It returns where it put each word, so that tests know the truth.

Coordinates are points from the top left corner of the page. The widths of Helvetica's letters are those of Adobe's metrics.
"""

import zlib
from dataclasses import dataclass, field

SMALL = "278 556 556 500 556 556 278 556 556 222 222 500 222 833 556 556 556 556 333 500 278 556 500 722 500 500 500"
LARGE = "667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 611 722 667 944 667 667 611"
WIDTHS = dict(zip(" abcdefghijklmnopqrstuvwxyz", map(int, SMALL.split()), strict=True))  # thousandths of the size
WIDTHS |= dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", map(int, LARGE.split()), strict=True))
WIDTHS |= dict.fromkeys("0123456789", 556) | {".": 278, ",": 278, "-": 333, ":": 278, "'": 191, "(": 333, ")": 333, "/": 278}


@dataclass
class Placed:
    """A word and its box: as wide as its advance, and from the baseline to the height of a capital."""

    text: str
    box: tuple[float, float, float, float]


def width_of(text: str, size: float) -> float:
    return sum(WIDTHS[letter] for letter in text) * size / 1000


@dataclass
class PdfPage:
    """A page that is drawn on with methods. `head` holds more entries of its dictionary, such as /Rotate 90."""

    width: float = 600
    height: float = 800
    head: str = ""
    content: list[bytes] = field(default_factory=list)
    words: list[Placed] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)  # name -> object

    def text(self, x: float, y: float, line: str, size: float = 10, mode: int = 0) -> None:
        """Write a line with its baseline at y."""
        escaped = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        self.content.append(f"BT {mode} Tr /F {size} Tf {x} {self.height - y} Td ({escaped}) Tj ET".encode())
        at = x
        for word in line.split(" "):
            end = at + width_of(word, size)
            if word:
                self.words.append(Placed(word, (at, y - 0.72 * size, end, y)))
            at = end + width_of(" ", size)

    def paragraph(self, x: float, y: float, text: str, width: float, size: float = 10, leading: float = 12) -> float:
        """Write a text in lines of at most `width` points, and return the baseline after it."""
        line = ""
        for word in text.split(" "):
            if line and width_of(f"{line} {word}", size) > width:
                self.text(x, y, line, size)
                line, y = "", y + leading
            line = f"{line} {word}".strip()
        self.text(x, y, line, size)
        return y + leading

    def picture(self, box: tuple[float, float, float, float], pixels: bytes, size: tuple[int, int], head: str = "") -> None:
        """Put an RGB image, or one of other colours if `head` says so, into a box."""
        name = f"I{len(self.images)}"
        colour = "" if "/ColorSpace" in head else "/ColorSpace/DeviceRGB"
        data = zlib.compress(pixels)
        facts = f"<</Type/XObject/Subtype/Image/Width {size[0]}/Height {size[1]}{colour}/BitsPerComponent 8{head}"
        self.images[name] = stream(data, f"{facts}/Filter/FlateDecode")
        x0, y0, x1, y1 = box
        self.content.append(f"q {x1 - x0} 0 0 {y1 - y0} {x0} {self.height - y1} cm /{name} Do Q".encode())

    def draw(self, operators: str) -> None:
        self.content.append(operators.encode())


def stream(data: bytes, head: str = "<<") -> bytes:
    return f"{head}/Length {len(data)}>>stream\n".encode() + data + b"\nendstream"


def pdf(*pages: PdfPage, catalog: str = "") -> bytes:
    """Return a PDF of these pages."""
    objects = [f"<</Type/Catalog/Pages 2 0 R{catalog}>>".encode(), b""]
    objects.append(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>")
    kids = []
    for page in pages:
        names = []
        for name, image in page.images.items():
            objects.append(image)
            names.append(f"/{name} {len(objects)} 0 R")
        objects.append(stream(b"\n".join(page.content)))
        resources = f"/Resources<</Font<</F 3 0 R>>/XObject<<{''.join(names)}>>>>"
        box = "" if "/MediaBox" in page.head else f"/MediaBox[0 0 {page.width} {page.height}]"
        objects.append(f"<</Type/Page/Parent 2 0 R{box}{page.head}{resources}/Contents {len(objects)} 0 R>>".encode())
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<</Type/Pages/Kids[{' '.join(kids)}]/Count {len(kids)}>>".encode()
    return whole(objects)


def whole(objects: list[bytes], trailer: str = "") -> bytes:
    """Return a PDF of numbered objects, of which the first is the catalog."""
    out, places = b"%PDF-1.7\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + one + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    end = f"trailer <</Size {size}/Root 1 0 R{trailer}>>\nstartxref\n{len(out)}\n%%EOF"
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + end.encode()
