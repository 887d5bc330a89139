"""Runs workers as Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from vlmdata.engine.drive.driver import WorkFailed
from vlmdata.engine.drive.workers import Ended
from vlmdata.engine.partitions.calls import RunJob
from vlmdata.engine.work.worker import Worker
from vlmdata.process.interrupt import handlers_kept
from vlmdata.process.shortage import describe_error
from vlmdata.process.thread import attempt
from vlmdata.step import RecipeError
from vlmdata.untrusted import Failed, errors_as, one_line
from vlmdata.version import version

STARTS = 2  # attempts to start Ray on this machine
STORE_BYTES = 150_000_000  # small, because no image goes through Ray's object store
MOST_CHARS = 30  # maximum length of the temporary folder's path; Ray adds 75 for a socket, and 107 is the limit
MAX_RESTARTS = 8  # maximum number of restarts of the rate limiter; the run fails when it dies once more


@contextlib.contextmanager
def cluster(address: str | None, workers: int) -> Iterator[int]:
    """Connect to a cluster, or start Ray on this machine, for the duration of the block. Yields the number of CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    short = len(tempfile.gettempdir()) <= MOST_CHARS
    folder = tempfile.mkdtemp(prefix="vd-", dir=None if short else "/tmp")
    try:
        with handlers_kept():
            if address:
                _connect(ray, address, **quiet)
            else:
                here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES, "num_cpus": workers}
                _start(ray, _temp_dir=folder, **here, **quiet)
        yield int(ray.cluster_resources().get("CPU", 1))
    except ray.exceptions.RayError as error:  # the cluster was lost
        raise WorkFailed(f"Ray failed: {_short(error)}; run the same command again to resume") from None
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _connect(ray: Any, address: str, **options: Any) -> None:
    # Ray raises errors of any class
    with errors_as(lambda error: _not_connected(address, error)):
        ray.init(address=address, **options)


def _not_connected(address: str, error: Exception) -> Exception:
    if "version mismatch" in str(error).lower():
        why = one_line(error)[:400]
        return RecipeError(f"the Ray cluster at {address} runs other versions than this process. Install the same: {why}")
    return RecipeError(f"no Ray cluster answers at {address}: {_short(error)}")


def _start(ray: Any, **options: Any) -> None:
    """Start Ray on this machine.

    Try twice, because a start on a busy machine can exceed Ray's time limit of 15 s (ray#65983).
    """
    for number in range(STARTS):
        try:
            with errors_as(_start_failed):
                ray.init(address="local", **options)
            return
        except WorkFailed:
            ray.shutdown()
            if number == STARTS - 1:
                raise


def _start_failed(error: Exception) -> Exception:
    """Return the error to raise after Ray failed to start.

    An error of the machine, such as a full disk, is returned unchanged. Any other error becomes WorkFailed.
    Ray itself raises RuntimeError, TimeoutError and Exception.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
        return error
    return WorkFailed(f"Ray does not start here: {_short(error)}; try again, or use --local")


def _short(error: Exception) -> str:
    return one_line(error)[:200]


class RayWorkers:
    """A pool of `count` actors, which may run on any node.

    Each actor has one CPU, and each of the first `gpus` actors also has one GPU.
    `rate_limiter` is the actor that holds the run's RateLimiter, or None if no step uses the web.
    """

    def __init__(self, job: RunJob, count: int, web: Any | None, *, together: int, gpus: int = 0):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.count = count
        self._ray = ray
        self._job = job
        self.gpus = min(gpus, count)
        self._options = {"num_cpus": 1, "max_restarts": 0, "max_task_retries": 0}
        self._options["max_concurrency"] = together + 1
        self.rate_limiter: Any = None
        if web:  # the limiter runs on the driver's node, because the run fails anyway if this node is lost
            here = self._ray.get_runtime_context().get_node_id()
            driver_node = NodeAffinitySchedulingStrategy(here, soft=False)
            # a restarted limiter has lost the state of all hosts, such as their delays
            restarts = {"max_restarts": MAX_RESTARTS, "max_task_retries": MAX_RESTARTS}
            options = {"num_cpus": 0, "max_concurrency": 8, "scheduling_strategy": driver_node, **restarts}
            self.rate_limiter = ray.remote(_rate_limiter_class()).options(**options).remote(web)
        self._calls: dict[Any, tuple[int, int]] = {}
        self._starting: dict[Any, int] = {}
        self._actors: list[Any] = [None] * count
        for number in range(count):
            self._start(number)

    def _start(self, number: int) -> None:
        """Create an actor. It gets no calls until it answers. After the loss of a node, the actor may wait for a free CPU."""
        proxy = _RayRateLimiter(self.rate_limiter) if self.rate_limiter is not None else None
        options = {**self._options, "num_gpus": 1 if number < self.gpus else 0}
        self._actors[number] = self._ray.remote(_Actor).options(**options).remote(self._job, proxy)
        self._starting[self._actors[number].ready.remote()] = number

    def is_ready(self, worker: int) -> bool:
        return worker not in self._starting.values()

    def send(self, worker: int, ticket: int, method: str, args: tuple[Any, ...]) -> None:
        self._calls[self._actors[worker].call.remote(method, args)] = (worker, ticket)

    def wait(self) -> list[Ended]:
        waiting = [*self._calls, *self._starting]
        ready, _ = self._ray.wait(waiting, num_returns=1)
        more, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        ended: list[Ended] = []
        dead: set[int] = set()
        for call in {*ready, *more}:
            if call in self._starting:
                self._settle(call)
                continue
            worker, ticket = self._calls.pop(call)
            ended.append(self._result(call, worker, ticket))
            if ended[-1].died:
                dead.add(worker)
        for call, (worker, ticket) in list(self._calls.items()):
            if worker in dead:
                del self._calls[call]
                ended.append(Ended(worker, ticket, died="a crash in another call"))
        for worker in dead:
            self._start(worker)
        return ended

    def _settle(self, call: Any) -> None:
        number = self._starting.pop(call)
        try:
            place, found = self._ray.get(call)
            if line := other_versions([(place, found)], version()):  # a node that joined after `check_versions`
                raise WorkFailed(line)
        except self._ray.exceptions.RayActorError as error:
            if "creation task" in str(error):  # the constructor raised an error, and would raise it again in a new actor
                raise WorkFailed(f"a worker cannot start: {error}") from None
            self._start(number)

    def _result(self, call: Any, worker: int, ticket: int) -> Ended:
        errors = self._ray.exceptions
        try:
            result, error = self._ray.get(call)
        except errors.OutOfMemoryError:
            return Ended(worker, ticket, died="out of memory")
        except errors.ActorUnavailableError:
            return Ended(worker, ticket, died="node lost")
        except errors.ActorDiedError as died:
            return Ended(worker, ticket, died=_how(str(died)))
        except errors.RayActorError as died:
            return Ended(worker, ticket, died=_how(str(died)))
        return Ended(worker, ticket, result, error)

    def close(self) -> None:
        for actor in self._actors:
            with contextlib.suppress(Failed), errors_as(Failed):
                self._ray.kill(actor)
        if self.rate_limiter is not None:
            self._ray.kill(self.rate_limiter)


def _how(message: str) -> str:
    """Return the cause of an actor's death, as a value of `Ended.died`. `message` is Ray's report of the death."""
    if "SIGKILL" in message or "killed" in message.lower():
        return "SIGKILL"
    if "node" in message.lower() and "died" in message.lower():
        return "node lost"
    return "crashed"


class _Actor:
    """A Worker in an actor's process. It returns errors as text, because not every exception can be pickled."""

    def __init__(self, job: RunJob, rate_limiter: Any):
        self.worker = Worker(job, rate_limiter)

    def ready(self) -> tuple[str, str]:
        """Return the address of the node and its version of vlmdata. The answer shows the driver that the actor runs."""
        import ray

        return ray.util.get_node_ip_address(), version()

    def call(self, method: str, args: tuple[Any, ...]) -> tuple[Any, str | None]:
        def work() -> tuple[Any, str | None]:
            return getattr(self.worker, method)(*args), None

        return attempt(work, lambda error: (None, describe_error(error)))  # the driver reports the error


def _rate_limiter_class() -> type:
    from vlmdata.web.rate_limiter import RateLimiter

    return RateLimiter


class _RayRateLimiter:
    """Passes the calls of a worker's web client on to the run's rate limiter."""

    is_local = False

    def __init__(self, actor: Any):
        self._actor = actor

    def exchange(self, *args: Any) -> Any:
        import ray

        try:
            return ray.get(self._actor.exchange.remote(*args))
        except ray.exceptions.RayActorError:
            raise ConnectionError("the workers' shared rate limiter died") from None


def gpus() -> int:
    """Return the number of GPUs of the cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def check_versions() -> None:
    """Raise RecipeError if a node of the cluster has another version of vlmdata than this process, or has none.

    Such a node could fail with any error, or give other values for the same rows. Ray itself compares the versions of Python.
    A node without CPUs, as the head of many clusters, is not asked, because no worker runs there.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0)(_version_reader())
    nodes = [node for node in ray.nodes() if node["Alive"] and "CPU" in node["Resources"]]
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    found = ray.get([ask.options(scheduling_strategy=strategy).remote() for strategy in there])
    if line := other_versions(zip([node["NodeManagerAddress"] for node in nodes], found, strict=True), version()):
        raise RecipeError(line)


def _version_reader() -> Callable[[], str | None]:
    """Return a function that Ray sends with its code, because a node with another version may not have it."""

    def read_version() -> str | None:
        try:
            from vlmdata.version import version
        except ImportError:
            return None
        return version()

    return read_version


def other_versions(nodes: Iterable[tuple[str, str | None]], own: str) -> str:
    """Return a line about the nodes whose version of vlmdata is not `own`, or "". A node is (address, version or None)."""
    others = [(address, found) for address, found in nodes if found != own]
    if not others:
        return ""
    address, found = others[0]
    more = f" {len(others) - 1} more nodes differ too." if len(others) > 2 else " Another node differs too." * (len(others) - 1)
    has = f"vlmdata {found}" if found else "no vlmdata"
    return (
        f"the Ray node {address} has {has}, but this process has vlmdata {own}.{more} "
        "Install the same version on all nodes and start Ray there again"
    )


def every_node_reads(out: str) -> None:
    """Raise RecipeError if a node of the cluster cannot read a file that the driver writes to the output folder `out`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2 or "://" in out:
        return
    token = secrets.token_hex(8)
    probe = Path(out) / "work" / f"probe-{token}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.write_text(token)
    read = ray.remote(num_cpus=0)(_read_text)
    try:
        answers = [
            read.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n, soft=False)).remote(str(probe)) for n in nodes
        ]
        blind = [node for node, answer in zip(nodes, ray.get(answers), strict=True) if answer != token]
    finally:
        probe.unlink()
    if blind:
        raise RecipeError(
            f"{len(blind)} of {len(nodes)} nodes cannot read the driver's files in {out}. Give a path that all nodes share, or s3://…"
        )


def _read_text(path: Path | str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
