"""Finds the certificate authorities that the web client trusts."""

from __future__ import annotations

import functools
import os
import ssl

from vlmdata.errors import RecipeError

BUNDLES = (  # where systems keep their authorities in one file
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS, Alpine, the BSDs
)


@functools.cache
def authorities() -> str:
    """Return the path of a PEM file with authorities: those of the package certifi, or the system's if it is not installed.

    The extra `ray` installs certifi, so that all machines of a cluster trust the same authorities. Raises RecipeError if there
    is no file.
    """
    try:
        import certifi
    except ImportError:
        return system_authorities()
    return certifi.where()


def system_authorities(bundles: tuple[str, ...] = BUNDLES) -> str:
    """Return the path of the system's PEM file with authorities. Raises RecipeError if there is none."""
    for path in (ssl.get_default_verify_paths().cafile, *bundles):
        if path and os.path.isfile(path):
            return path
    raise RecipeError(
        "download: this machine has no certificate authorities, so no https address can be fetched. Run pip install certifi, "
        "install the system's package ca-certificates, or name a PEM file in download.ca_file"
    )
