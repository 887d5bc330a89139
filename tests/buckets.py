"""A bucket on the loopback address (moto), behind a filter that a test may set."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fsspec

KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}


@contextlib.contextmanager
def bucket(see: Callable[[dict[str, Any]], None] = lambda request: None) -> Iterator[str]:
    """Serve an empty bucket and yield its address. s3fs finds it through the environment, here and in child processes.

    `see` gets every request (its WSGI environment) before the bucket does, and may change or delay it."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    app = DomainDispatcherApplication(create_backend_app)

    def wall(request: dict[str, Any], answer: Any) -> Any:
        see(request)
        return app(request, answer)

    server = make_server("127.0.0.1", 0, wall, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    changed = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    changed["AWS_DEFAULT_REGION"] = "us-east-1"
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        name = f"data-{uuid.uuid4().hex}"  # moto shares one memory among all servers of a process
        client().create_bucket(Bucket=name)
        yield f"s3://{name}"
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.shutdown()
        thread.join()


def client() -> Any:
    """Return a client that is independent of the code under test."""
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], **KEYS)


def names(folder: str) -> list[str]:
    """Return the names of all objects under an address, relative to it."""
    name, _, prefix = folder.removeprefix("s3://").partition("/")
    pages = client().get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix)
    return [item["Key"][len(prefix) :].lstrip("/") for page in pages for item in page.get("Contents", [])]


def objects(folder: str) -> dict[str, bytes]:
    """Return every object under an address with its bytes."""
    name, _, prefix = folder.removeprefix("s3://").partition("/")
    get, found = client().get_object, names(folder)
    return {one: get(Bucket=name, Key=f"{prefix}/{one}".lstrip("/"))["Body"].read() for one in found}
