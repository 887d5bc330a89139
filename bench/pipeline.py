"""Captions end to end, beside img2dataset on the same bytes: CPU seconds per 1,000 images, rows per second, memory.

    python -m bench.pipeline [PHOTOS] [--case plain|large|slow|tls|start] [--count N] [--workers N] [--tools NAME,…]

PHOTOS is a folder of JPEGs (by default the bundled figures). A separate process serves them over loopback, with different bytes
at each address. Each tool fetches them, resizes the short side to 256 and writes tars of quality 95, with 2 workers unless an
option says otherwise.

plain: long side 640, at most 92 kB. large: 8 megapixels. slow: 100 ms latency, and 2% of the addresses take 5 s. tls: plain
over TLS, where both tools trust certifi and the server. start: 200 rows, so that most of the time is starting. Without --case,
all run.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import shutil
import ssl
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.inputs.certificate import Certificate
from bench.measure import cost

# the figures are small and are enlarged, so they decode slightly faster than photos
FIGURES = Path(__file__).parent.parent / "vlmdata" / "demo" / "figures"
SLOW_S, LATENCY_S = 5.0, 0.1


@dataclass(frozen=True)
class Case:
    """What is served: the number of pictures, their long side in pixels, and their largest size in bytes."""

    count: int
    side: int = 640
    size: int = 92_000
    is_slow: bool = False
    is_tls: bool = False


CASES = {
    "plain": Case(3000),
    "large": Case(400, 3456, 2_500_000),
    "slow": Case(3000, is_slow=True),
    "tls": Case(1000, is_tls=True),
    "start": Case(200),
}


def bodies(photos: Path, side: int, size: int) -> list[bytes]:
    """Return JPEGs of at most about `size` bytes with a long side of `side` pixels, made from the photos."""
    made = []
    for path in sorted(photos.glob("*.jpg"))[:40]:
        with Image.open(path) as image:
            picture = image.convert("RGB")
        factor = side / max(picture.size)
        picture = picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS)
        for quality in range(98, 30, -3):
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=quality)
            if out.tell() <= size:
                break
        made.append(out.getvalue())
    return made


def serve(pictures: list[bytes], port: Any, slow: bool, secure: ssl.SSLContext | None) -> None:
    """Answer /NUMBER.jpg with a picture that has its number in a comment, so that all pictures differ."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/robots.txt":
                self.send_error(404)
                return
            number = int(self.path.strip("/").split(".")[0])
            if slow:
                time.sleep(SLOW_S if number % 50 == 7 else LATENCY_S)
            body = pictures[number % len(pictures)]
            comment = b"\xff\xfe\x00\x0a" + f"{number:08d}".encode()
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body) + len(comment)))
            self.end_headers()
            self.wfile.write(body[:2] + comment + body[2:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 4096

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            if secure:  # the handshake is done by the thread that reads, not by the thread that accepts connections
                connection = secure.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    port.value = server.server_port
    server.serve_forever()


def commands(listing: Path, work: Path, tools: list[str], authorities: str, workers: int) -> dict[str, tuple[list[str], Path]]:
    """Return the command line of each tool and the folder that it writes."""
    free = {"allowed_hosts": ["127.0.0.1"], "host_requests_per_s": 0, "host_connections": 0, "retries": 0}
    recipe = {
        "source": {"type": "url_list", "path": str(listing)},
        "steps": [
            {"download": {**free, "ca_file": authorities}},
            {"resize": {"mode": "keep_ratio", "size": 256, "quality": 95}},
        ],
        "shards": {"samples": 500},
        "part_rows": 500,
    }
    (work / "recipe.yaml").write_text(json.dumps(recipe))
    ours = [sys.executable, "-m", "vlmdata.cli", "run", str(work / "recipe.yaml"), "--workers", str(workers), "--out"]
    options = {
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "processes_count": workers,
        "thread_count": 64,
        "image_size": 256,
        "resize_mode": "keep_ratio",
        "encode_quality": 95,
        "number_sample_per_shard": 500,
    }
    peer = f"import img2dataset, sys; img2dataset.download(url_list=sys.argv[1], output_folder=sys.argv[2], **{options})"
    local, ray, other = work / "local", work / "ray", work / "peer"
    every = {
        "vlmdata --local": ([*ours, str(local), "--local"], local),
        "vlmdata on Ray": ([*ours, str(ray)], ray),
        "img2dataset": ([sys.executable, "-c", f"if __name__ == '__main__': {peer}", str(listing), str(other)], other),
    }
    return {name: every[name] for name in tools}


def floor(pictures: list[bytes]) -> float:
    """Return the CPU seconds per 1,000 pictures that decoding, resizing and encoding take alone, in one thread."""
    import cv2
    import simplejpeg

    began = time.process_time()
    for body in pictures:
        height, width, *_ = simplejpeg.decode_jpeg_header(body)
        short = min(width, height)
        scale = max(k for k in (1, 2, 4, 8) if k == 1 or short / k >= 1.25 * 256)
        pixels = simplejpeg.decode_jpeg(body, min_width=-(-width // scale), min_height=-(-height // scale), min_factor=1)
        size = (round(width * 256 / short), round(height * 256 / short))
        simplejpeg.encode_jpeg(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), quality=95, colorsubsampling="420")
    return (time.process_time() - began) * 1000 / len(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", default=FIGURES)
    parser.add_argument("--count", type=int)
    parser.add_argument("--case", choices=list(CASES))
    parser.add_argument("--tools", default="vlmdata --local,vlmdata on Ray,img2dataset")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for name in [arguments.case] if arguments.case else CASES:
        count = arguments.count or CASES[name].count
        measure(name, arguments.photos, count, arguments.tools.split(","), arguments.workers)


def measure(name: str, photos: Path, count: int, tools: list[str], workers: int) -> None:
    """Print the table of one case."""
    case = CASES[name]
    pictures = bodies(photos, case.side, case.size)
    work = Path(tempfile.mkdtemp(prefix="vd-bench-"))
    certificate = Certificate("127.0.0.1", folder=work) if case.is_tls else None
    authorities = work / "authorities.pem"
    authorities.write_bytes(Path(certifi.where()).read_bytes() + (certificate.file.read_bytes() if certificate else b""))
    secure = certificate.server_context() if certificate else None
    context = multiprocessing.get_context("fork")
    port = context.Value("i", 0)
    server = context.Process(target=serve, args=(pictures, port, case.is_slow, secure), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.01)
    listing = work / "urls.parquet"
    urls = [f"{'https' if secure else 'http'}://127.0.0.1:{port.value}/{number}.jpg" for number in range(count)]
    pq.write_table(pa.table({"url": urls, "caption": [f"picture {number}" for number in range(count)]}), listing)
    print(f"{name}: {count} addresses, {sum(map(len, pictures)) / len(pictures) / 1000:.0f} kB each")
    print(f"{'tool':<18} {'CPU s / 1000':>12} {'rows/s':>8} {'wall s':>8} {'MB':>7} {'images':>7}")
    print(f"{'bare work':<18} {floor(pictures):>12.2f}")
    for tool, (command, out) in commands(listing, work, tools, str(authorities), workers).items():
        spent = cost(command, SSL_CERT_FILE=str(authorities), NO_ALBUMENTATIONS_UPDATE="1")
        assert spent.status == 0, f"{tool} ended with {spent.status}"
        rate = f"{spent.cpu_s * 1000 / count:>12.2f} {count / spent.wall_s:>8.0f}"
        print(f"{tool:<18} {rate} {spent.wall_s:>8.1f} {spent.memory_mb:>7.0f} {images(out):>7}", flush=True)
    server.kill()
    shutil.rmtree(work)


def images(out: Path) -> int:
    """Count the images in a folder's tars. A tool that fetched fewer images did less work."""
    found = 0
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            found += sum(name.endswith(".jpg") for name in tar.getnames())
    return found


if __name__ == "__main__":
    main()
