"""Serves a checkpoint until the process ends."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

from vlmdata.models.weights_identity import identity, unusable_weights
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.serving.engine import Engine
from vlmdata_train.serving.http_server import MAX_CONNECTIONS, Model, Server
from vlmdata_train.serving.listener import address_of, listen
from vlmdata_train.serving.prompting import Prompting, context_of


def serve(checkpoint: str, bound: socket.socket, *, batch: int, device: str) -> None:
    """Load a checkpoint, print the address of the server, and answer requests at the socket until an exception, as of a signal.

    A batch has at most `batch` requests. Raises RecipeError if the checkpoint cannot be loaded, or has no chat template.
    """
    folder = Path(checkpoint)
    with errors_as(partial(unusable_weights, checkpoint), passes=(RecipeError,)):
        weights = identity(checkpoint)
        model, recipe = restore(folder, device)
        prompter = prompter_of(model, trusted=recipe.trusted_tokens)
    prompting = Prompting(prompter, context_of(model), recipe.stage == "align")
    prompting.check()
    engine = Engine(model, prompter, batch=batch, context=prompting.context)
    created = int((folder / "recipe.json").stat().st_mtime)
    served = Model(name_of(folder), weights, created, prompting, engine)
    listen(bound, MAX_CONNECTIONS)
    with Server(bound, served) as server:
        engine.start()
        print(f"serving {checkpoint} at {address_of(bound)}/v1", flush=True)
        server.serve_forever()


def name_of(checkpoint: Path) -> str:
    """Return the name of a checkpoint for clients: RUN/STEP for RUN/checkpoints/STEP, otherwise the name of its folder.

    It has no path of this machine, because clients write it into their results.
    """
    place = checkpoint.resolve()
    return f"{place.parent.parent.name}/{place.name}" if place.parent.name == "checkpoints" else place.name
