"""Archive records per CPU second beside warcio, in one run over the same files: headers parsed, content read, HTTP undone.

python -m bench.archives         # needs vlmdata[bench] and the real archives of tests/real_data.py
python -m bench.archives FILE    # memory that reading one archive takes
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastwarc.warc import ArchiveIterator
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from tests.real_data import ROOT
from vlmdata.html.archive import records, volumes
from vlmdata.html.http_message import parse_response

FILES = (
    "solrwayback/example_warc/IAH-20080430204825-00000-blackbook.warc.gz",
    "pywb_sample_archive/warcs/iana.warc.gz",
    "resiliparse_tests/warcfile.warc.gz",
    "node-warc/books.toscrape.warc",
)
ROUNDS = 5


def ours(path: Path) -> int:
    count = 0
    for volume in volumes(path):
        for record in records(volume):
            count += 1
            if record.kind == "response":
                parse_response(record.block, max_bytes=100_000_000)
    return count


def warcio(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        for record in WarcioIterator(file):
            count += 1
            if record.rec_type == "response":
                record.content_stream().read()
    return count


def fastwarc_alone(path: Path) -> int:
    """Read as fast as the library can: no digests, no HTTP bodies undone."""
    count = 0
    for record in ArchiveIterator(str(path), parse_http=False):
        count += 1
        if str(record.record_type).endswith("response"):
            record.reader.read()
    return count


def memory(path: Path) -> None:
    """Print what one archive takes from its first record to its last."""
    start = time.process_time()
    count = ours(path)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {count} records, {spent:.1f} CPU s, peak {peak} MB")


def main() -> None:
    if sys.argv[1:]:
        memory(Path(sys.argv[1]))
        return
    tools: dict[str, Callable[[Path], int]] = {"vlmdata": ours, "warcio": warcio, "FastWARC alone": fastwarc_alone}
    print(f"{'file':<44}{'records':>8}" + "".join(f"{name:>18}" for name in tools) + f"{'times warcio':>14}")
    for name in FILES:
        path = ROOT / "C_warc" / name
        best = dict.fromkeys(tools, 0.0)
        for _ in range(ROUNDS):
            for tool, read in tools.items():
                start = time.process_time()
                count = read(path)
                best[tool] = max(best[tool], count / (time.process_time() - start))
        speeds = "".join(f"{best[tool]:>16.0f}/s" for tool in tools)
        print(f"{path.name:<44}{count:>8}{speeds}{best['vlmdata'] / best['warcio']:>14.1f}")


if __name__ == "__main__":
    main()
