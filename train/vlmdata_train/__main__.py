"""The trainer's command line. Each verb is a file in vlmdata_train/commands."""

from __future__ import annotations

import sys
import traceback

from vlmdata.process import interrupt

PACKAGES = ("open_clip", "safetensors", "timm", "tokenizers", "torch", "torchvision", "transformers")
STOPPED = "vlmdata train: stopped"
RESUMES = f"{STOPPED}; run the same command again to resume from the last checkpoint"


def main(arguments: list[str] | None = None) -> int:
    """Run a verb. Return 0, or 1 after a failure, 2 after a usage error, 130 after Ctrl-C or 143 after SIGTERM."""
    words = sys.argv[1:] if arguments is None else arguments
    message = RESUMES if words[:1] in (["align"], ["instruct"]) else STOPPED
    return interrupt.until_stopped(lambda: _main(words), message, is_process=arguments is None)


def _main(words: list[str]) -> int:
    from vlmdata.verbs import Verbs, call  # imported only after the signal handlers are set
    from vlmdata_train import commands

    verbs = Verbs(
        "vlmdata train",
        "Train vision-language models.",
        commands,
        first=("align", "instruct", "stages", "evaluate", "chat", "serve", "export"),
    )
    try:
        verb = next((word for word in words if not word.startswith("-")), "help")
        if verb != "help" and not {"-h", "--help"} & set(words):
            from vlmdata.extras import check_installed

            check_installed(PACKAGES, "the trainer")
        return call(verbs, words)
    except Exception as error:  # process boundary: errors of libraries may contain addresses with secrets
        return _failed(error)


def _failed(error: Exception) -> int:
    """Print the error and return the exit status. Call it in an `except` block, because it may print the traceback."""
    from vlmdata.loader.index.index_file import NoIndex
    from vlmdata.loader.read_samples import DamagedSample
    from vlmdata.redact import redacted
    from vlmdata.step import RecipeError

    if isinstance(error, (RecipeError, FloatingPointError)):
        print(f"vlmdata train: {error}", file=sys.stderr)
    elif isinstance(error, (NoIndex, DamagedSample, OSError)):
        print(f"vlmdata train: {redacted(str(error))}", file=sys.stderr)
    else:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
    return 2 if isinstance(error, RecipeError) else 1


if __name__ == "__main__":
    sys.exit(main())
