"""Captions end to end, beside img2dataset on the same bytes: CPU seconds per 1,000 images, rows per second, memory.

    python -m bench.pipeline [PHOTOS] [--count 3000] [--case plain|large|slow]

PHOTOS is a folder of JPEGs (the bundled figures, if none is named). They are served over loopback by a process of its own, each
address with bytes of its own.
Every tool fetches, resizes the short side to 256 and writes tars of quality 95 with two workers.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bench.measure import cost

BYTES = 92_000
FIGURES = Path(__file__).parent.parent / "vlmdata" / "demo" / "figures"  # small: enlarged, so that they decode a little faster
SLOW_S, LATENCY_S = 5.0, 0.1


def bodies(photos: Path, side: int, size: int) -> list[bytes]:
    """Return JPEGs of about `size` bytes with a long side of `side` pixels, made from the photos."""
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


def serve(pictures: list[bytes], port: Any, slow: bool) -> None:
    """Answer /NUMBER.jpg with a picture that has its number in a comment, so that no two are equal."""

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

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    port.value = server.server_port
    server.serve_forever()


def commands(listing: Path, work: Path, tools: list[str]) -> dict[str, list[str]]:
    """Return the command line of each tool."""
    recipe = {
        "source": {"type": "url_list", "path": str(listing)},
        "steps": [
            {"download": {"allowed_hosts": ["127.0.0.1"], "host_requests_per_s": 0, "host_connections": 0, "retries": 0}},
            {"resize": {"mode": "keep_ratio", "size": 256, "quality": 95}},
        ],
        "shards": {"samples": 500},
        "part_rows": 500,
    }
    (work / "recipe.yaml").write_text(json.dumps(recipe))
    ours = [sys.executable, "-m", "vlmdata.cli", "run", str(work / "recipe.yaml"), "--workers", "2", "--out"]
    options = {
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "processes_count": 2,
        "thread_count": 64,
        "image_size": 256,
        "resize_mode": "keep_ratio",
        "encode_quality": 95,
        "number_sample_per_shard": 500,
    }
    peer = f"import img2dataset, sys; img2dataset.download(url_list=sys.argv[1], output_folder=sys.argv[2], **{options})"
    every = {
        "vlmdata --local": [*ours, str(work / "local"), "--local"],
        "vlmdata on Ray": [*ours, str(work / "ray")],
        "img2dataset": [sys.executable, "-c", f"if __name__ == '__main__': {peer}", str(listing), str(work / "peer")],
    }
    return {name: every[name] for name in tools}


def floor(pictures: list[bytes]) -> float:
    """Return CPU seconds per 1,000 pictures of decoding, resizing and encoding alone, in one thread."""
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
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--case", choices=["plain", "large", "slow"], default="plain")
    parser.add_argument("--tools", default="vlmdata --local,vlmdata on Ray,img2dataset")
    arguments = parser.parse_args()
    pictures = bodies(arguments.photos, *((3456, 2_500_000) if arguments.case == "large" else (640, BYTES)))
    context = multiprocessing.get_context("fork")
    port = context.Value("i", 0)
    server = context.Process(target=serve, args=(pictures, port, arguments.case == "slow"), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.01)
    work = Path(tempfile.mkdtemp(prefix="vd-bench-"))
    listing = work / "urls.parquet"
    numbers = range(arguments.count)
    urls = [f"http://127.0.0.1:{port.value}/{number}.jpg" for number in numbers]
    pq.write_table(pa.table({"url": urls, "caption": [f"picture {number}" for number in numbers]}), listing)
    mean = sum(map(len, pictures)) / len(pictures)
    print(f"{arguments.case}: {arguments.count} addresses, {mean / 1000:.0f} kB each")
    print(f"{'tool':<18} {'CPU s / 1000':>12} {'rows/s':>8} {'wall s':>8} {'MB':>7}")
    print(f"{'bare work':<18} {floor(pictures):>12.2f}")
    for name, command in commands(listing, work, arguments.tools.split(",")).items():
        spent = cost(command)
        assert spent.status == 0, f"{name} ended with {spent.status}"
        per = spent.cpu_s * 1000 / arguments.count
        print(
            f"{name:<18} {per:>12.2f} {arguments.count / spent.wall_s:>8.0f} {spent.wall_s:>8.1f} {spent.memory_mb:>7.0f}",
            flush=True,
        )
    server.kill()
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
