"""The memory of an export does not grow with the dataset."""

import json
import subprocess
import sys

import pytest

from tests.exporting.made import caption, chat, make_dataset

CODE = """
import json, re, sys
from vlmdata import export
export(sys.argv[1], sys.argv[2], to=sys.argv[3], options=json.loads(sys.argv[4]))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])  # ru_maxrss would include the parent process
"""
MARGIN = 24_000  # KiB; an index of 20 000 more samples, or their JSON, would take more


def peak(*words: object) -> int:
    """Return the peak memory of an export in a new process, in KiB."""
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, words)], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "options", "layout", "made"),
    [
        ("energon", {}, "documents", chat),
        ("parquet", {}, "captions", caption),
        ("messages", {"form": "placeholders"}, "documents", chat),
        ("mds", {"compression": "zstd", "hashes": ["sha1"]}, "captions", caption),
    ],
)
def test_four_times_the_samples_take_the_same_memory(tmp_path, to, options, layout, made):
    peaks = []
    for count in (5_000, 20_000):
        make_dataset(tmp_path / f"{count}", map(made, range(count)), layout=layout)
        peaks.append(peak(tmp_path / f"{count}", tmp_path / f"{to}-{count}", to, json.dumps(options)))
    assert peaks[1] - peaks[0] < MARGIN, peaks
