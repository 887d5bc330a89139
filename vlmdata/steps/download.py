"""Fetch the images of a row from the web, politely and within limits."""

import importlib.util
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

from vlmdata.row import ROW
from vlmdata.step import RecipeError, Step
from vlmdata.web.options import WebOptions

# what img2dataset does not do, and how a recipe says that it knows
UNKEPT = {"robots": False, "tdm": False, "host_connections": 0, "host_requests_per_s": 0.0}
OBEYED = {"agent", "opt_out", "timeout_s", "connect_timeout_s", "retries", "connections", "allowed_hosts", "ca_file"}
OBEYED |= {"blocked_domains", "blocked_urls", "block_files"}


@dataclass(frozen=True, kw_only=True)
class Download(WebOptions, Step):
    """Fetch every image that has an address and no bytes yet. What cannot be had is an outcome of the row, with its reason.

    The engine does it together with the `resize` that follows, so that no original is written to disk.

    `engine: img2dataset` has img2dataset's own code fetch and resize, for the very bytes it writes. It knows no robots.txt,
    TDM reservation, pace or cap on bytes, and a recipe must say so: `robots: false, tdm: false, host_connections: 0,
    host_requests_per_s: 0`. The address guard holds, at every redirect, for the address connected to, and so does `timeout_s`.
    """

    id: ClassVar = "vlmdata.steps.download"
    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)

    engine: Literal["vlmdata", "img2dataset"] = "vlmdata"
    verify: Literal["", "sha256", "md5"] = ""
    """Drop what does not hash to what the source states (`url_list: {hash: column}`) as `wrong_sha256` or `wrong_md5`, and an
    address without a hash, unasked, as `no_hash`. DataComp's lists state SHA-256 (img2dataset: verify_hash)."""

    def check(self) -> None:
        if self.engine == "img2dataset":
            self._check_peer()

    def _check_peer(self) -> None:
        for module in ("img2dataset", "imghdr"):
            if importlib.util.find_spec(module) is None:
                why = "is not installed: pip install 'vlmdata[img2dataset]'" if module == "img2dataset" else "needs Python 3.12"
                raise RecipeError(f"engine: img2dataset {why}")
        ignored = [f.name for f in fields(WebOptions) if f.name not in OBEYED | set(UNKEPT) and not _is_default(self, f.name)]
        if ignored:
            raise RecipeError(f"engine: img2dataset does not know {', '.join(ignored)}")
        claimed = [name for name, value in UNKEPT.items() if getattr(self, name) != value]
        if claimed:
            wanted = ", ".join(f"{name}: {str(UNKEPT[name]).lower().removesuffix('.0')}" for name in claimed)
            raise RecipeError(f"engine: img2dataset keeps no robots.txt, TDM reservation or pace; to go without say {wanted}")


def _is_default(step: Download, name: str) -> bool:
    return getattr(step, name) == getattr(Download(), name)
