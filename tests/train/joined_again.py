"""Each rank joins a process group three times in one process. The second rank joins after the first has begun to join.

`test_loop_ranks.py` starts it under torchrun with a folder, and reads the sums that each rank writes there.
"""

import os
import sys
import time
from pathlib import Path

from vlmdata_train.distributed import all_reduce_sum, joined


def main(folder: Path) -> None:
    """Join, add a number over the ranks and leave, three times. Write the sums to a file named after the rank."""
    sums: list[float] = []
    for number in range(3):
        begun = folder / f"begun_{number}"
        if os.environ["RANK"] == "0":
            begun.touch()
        while not begun.exists():
            time.sleep(0.01)
        with joined("cpu") as ranks:
            sums += all_reduce_sum([ranks.rank + 1.0], ranks)
    (folder / f"rank_{ranks.rank}").write_text(str(sums))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
