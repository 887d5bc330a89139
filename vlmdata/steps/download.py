"""Fetch the images of a row from the web, within rate limits and size limits."""

import importlib.util
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from vlmdata.extras import check_installed
from vlmdata.parameters import Doc
from vlmdata.row import ROW
from vlmdata.step import RecipeError, Step
from vlmdata.web.authorities import authorities
from vlmdata.web.options import WebOptions

# options that img2dataset does not support, and the values that turn them off
UNKEPT = {"robots": False, "tdm": False, "host_connections": 0, "host_requests_per_s": 0.0}
OBEYED = {"agent", "opt_out", "timeout_s", "connect_timeout_s", "retries", "connections", "allowed_hosts", "ca_file"}
OBEYED |= {"blocked_domains", "blocked_urls", "block_files"}


@dataclass(frozen=True, kw_only=True)
class Download(WebOptions, Step):
    """Fetch every image that has an address and no bytes yet. An image that cannot be fetched is dropped with a reason.

    The engine runs this step together with the following `resize`, so that no original is written to disk.

    `engine: img2dataset` fetches and resizes images with img2dataset's code, so that they have the same bytes as images from
    img2dataset. That code does not support robots.txt, TDM reservations, rate limits or a limit on bytes. A recipe must turn
    these off: `robots: false, tdm: false, host_connections: 0, host_requests_per_s: 0`. The address guard still checks the
    address of every connection, including connections after a redirect. `timeout_s` still applies.
    """

    id: ClassVar = "vlmdata.steps.download"
    example: ClassVar = "- download: {contact: you@example.org, timeout_s: 30, host_rates: {cdn.example.org: 200}}"
    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)

    engine: Annotated[
        Literal["vlmdata", "img2dataset"],
        Doc(
            "Code that fetches and resizes. img2dataset: images have the same bytes as from img2dataset, but robots.txt, TDM "
            "reservations, rate limits and a limit on bytes are not supported."
        ),
    ] = "vlmdata"
    verify: Annotated[
        Literal["", "sha256", "md5"],
        Doc(
            "Compare the hash of the fetched bytes with the hash that the source states (`url_list: {hash: column}`). "
            "If they differ, the image is dropped as `wrong_sha256` or `wrong_md5`. An image without a stated hash "
            "is dropped as `no_hash` and is not fetched. DataComp's lists state SHA-256. img2dataset calls this "
            "option verify_hash."
        ),
    ] = ""

    def check(self) -> None:
        if self.engine == "img2dataset":
            self._check_peer()
        elif not self.ca_file:
            authorities()

    def _check_peer(self) -> None:
        if importlib.util.find_spec("imghdr") is None:
            raise RecipeError("engine: img2dataset needs Python 3.12")
        check_installed(["img2dataset"], "engine: img2dataset")
        ignored = [f.name for f in fields(WebOptions) if f.name not in OBEYED | set(UNKEPT) and not _is_default(self, f.name)]
        if ignored:
            raise RecipeError(f"engine: img2dataset does not support {', '.join(ignored)}")
        claimed = [name for name, value in UNKEPT.items() if getattr(self, name) != value]
        if claimed:
            wanted = ", ".join(f"{name}: {str(UNKEPT[name]).lower().removesuffix('.0')}" for name in claimed)
            raise RecipeError(
                f"engine: img2dataset ignores robots.txt, TDM reservations and rate limits. To accept this, set {wanted}"
            )


def _is_default(step: Download, name: str) -> bool:
    return getattr(step, name) == getattr(Download(), name)
