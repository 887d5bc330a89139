"""The trainer's command line: a thin shell over the public functions."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

from vlmdata import interrupt

EXAMPLES = """examples:
  python -m vlmdata_train align tiny --set data=OUT --set out=runs/tiny
  torchrun --nproc-per-node 8 -m vlmdata_train align --set data=OUT --set lr=1e-3
  torchrun --nproc-per-node 8 -m vlmdata_train instruct --set data=CHATS --set start=runs/align/checkpoints/step_00002180
  python -m vlmdata_train evaluate runs/tiny/checkpoints/step_00000060 OUT --samples 200
  python -m vlmdata_train chat runs/tiny/checkpoints/step_00000060 photo.jpg
  python -m vlmdata_train instruct --set data=CHATS --set model=null --set start=llava-hf/llava-1.5-7b-hf
  python -m vlmdata_train export runs/instruct/checkpoints/step_00005200 my-llava
"""


STOPPED = "vlmdata train: stopped; run the same command again to resume from the last checkpoint"


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns 0, 1 where it failed, 2 where it was misused, 130 where Ctrl-C stopped it, 143 by SIGTERM."""
    return interrupt.until_stopped(lambda: _main(arguments), STOPPED, is_process=arguments is None)


def _main(arguments: list[str] | None) -> int:
    from vlmdata.loader.index import NoIndex
    from vlmdata.loader.read import DamagedSample
    from vlmdata.redact import redacted
    from vlmdata.step import RecipeError

    choice = _parser().parse_args(arguments)
    try:
        return int(choice.run(choice) or 0)
    except RecipeError as error:
        return _fail(str(error), 2)
    except FloatingPointError as error:
        return _fail(str(error), 1)
    except (NoIndex, DamagedSample, OSError) as error:
        return _fail(redacted(str(error)), 1)
    except Exception:  # the boundary of the process: addresses in errors of libraries hold secrets
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "vlmdata train", description="Train vision-language models.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for stage, says in (("align", "train the projector on captions"), ("instruct", "train on conversations")):
        command = commands.add_parser(stage, help=says, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_argument("recipe", nargs="?", default=stage, help=f"a file, or one that ships: tiny, {stage} (the default)")
        command.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change a value of the recipe")
        command.set_defaults(run=_train, stage=stage)
    command = commands.add_parser("evaluate", help="loss and exact match of a checkpoint on a dataset", epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    command.add_argument("checkpoint")
    command.add_argument("data", help="a dataset, or tars")
    command.add_argument("--samples", type=int, default=256, help="how many (256)")
    command.add_argument("--answer-tokens", type=int, default=32, help="at most, in a generated answer (32)")
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    command.set_defaults(run=_evaluate)
    command = commands.add_parser("chat", help="talk with a checkpoint about an image", epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    command.add_argument("checkpoint")
    command.add_argument("image", nargs="*", help="shown before the first question")
    command.add_argument("--ask", metavar="TEXT", help="one question, then end; without it questions are read line by line")
    command.add_argument("--max-tokens", type=int, default=256, help="of an answer (256)")
    command.add_argument("--temperature", type=float, default=0.0, help="0 (the default) takes the likeliest token")
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    command.set_defaults(run=_chat)
    command = commands.add_parser("export", help="write a checkpoint as transformers' LLaVA", epilog=EXAMPLES,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    command.add_argument("checkpoint")
    command.add_argument("folder", help="a new or empty folder, for from_pretrained, vLLM or the Hugging Face Hub")
    command.set_defaults(run=_export)
    return parser


def _train(choice: argparse.Namespace) -> None:
    from vlmdata.recipe import read_settings
    from vlmdata_train.checks import check_training
    from vlmdata_train.recipe import load

    recipe = load(choice.recipe, stage=choice.stage, overrides=read_settings(choice.set))
    check_training(recipe)
    from vlmdata_train.loop import run_training  # torch, which takes seconds: after what can be wrong without it

    result = run_training(recipe)
    if os.environ.get("RANK", "0") == "0":
        print(result.checkpoint)


def _evaluate(choice: argparse.Namespace) -> None:
    from vlmdata_train.checks import check_evaluation

    check_evaluation(choice.checkpoint, choice.data, samples=choice.samples, answer_tokens=choice.answer_tokens)
    from vlmdata_train.evaluate import evaluate_checkpoint

    print(
        evaluate_checkpoint(
            choice.checkpoint, choice.data, samples=choice.samples, answer_tokens=choice.answer_tokens, device=choice.device
        )
    )


def _chat(choice: argparse.Namespace) -> None:
    from vlmdata_train.checks import check_chat

    check_chat(choice.checkpoint, choice.image, max_tokens=choice.max_tokens, temperature=choice.temperature)
    from vlmdata_train.chat import Conversation, talk

    conversation = Conversation.open(
        choice.checkpoint, choice.image, device=choice.device, max_tokens=choice.max_tokens, temperature=choice.temperature
    )
    if choice.ask is not None:
        print(conversation.ask(choice.ask))
    else:
        talk(conversation)


def _export(choice: argparse.Namespace) -> None:
    from vlmdata_train.checks import check_export

    check_export(choice.checkpoint, choice.folder)
    from vlmdata_train.llava_save import export
    from vlmdata_train.quiet import quiet

    with quiet():  # it would draw bars for the files it writes
        export(Path(choice.checkpoint), Path(choice.folder))
    print(choice.folder)


def _fail(text: str, status: int) -> int:
    print(f"vlmdata train: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
