"""The training run, from recipe to checkpoints, top to bottom."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmdata.count_line import CountLine
from vlmdata.sizes import counted, noun
from vlmdata.step import RecipeError
from vlmdata_train.convert import checkpoint
from vlmdata_train.data import open_feed
from vlmdata_train.data.first_sample import shown
from vlmdata_train.data.left_out import count_left_out, left_out_lines
from vlmdata_train.distributed import Ranks, all_gather_objects, all_reduce_sum, joined
from vlmdata_train.loop import setup
from vlmdata_train.loop.answers import held_out_answers
from vlmdata_train.loop.broken_loss import SpikeWatch, may_update
from vlmdata_train.loop.flops import matrix_peak
from vlmdata_train.loop.held_out import HeldOutLoss, held_out_loss
from vlmdata_train.loop.learner import Learner, check_speed
from vlmdata_train.loop.log import Log, check_logs
from vlmdata_train.loop.meter import Meter, add_step, step_line
from vlmdata_train.loop.optim import schedule_factor, set_learning_rates
from vlmdata_train.loop.prefetch import Prefetcher
from vlmdata_train.loop.run_progress import RunProgress
from vlmdata_train.loop.score import score, table
from vlmdata_train.loop.train_step import MicroBatch
from vlmdata_train.recipe import Recipe

MAX_REFUSED = 20  # skipped steps in a row, after which the run stops; a single bad sample does not cause this many


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    `losses` has the loss per answer token of each step that this process has done. Steps before a resume are not included.
    """

    out: Path
    checkpoint: Path | None  # the last checkpoint; None if the recipe saves no checkpoint
    steps: int
    losses: list[float]
    held_out: float | None


def run_training(recipe: Recipe) -> Result:
    """Train, or resume from the last checkpoint in `recipe.out`, and return the result. A finished run returns at once."""
    if recipe.speed.threads is not None:
        torch.set_num_threads(recipe.speed.threads)
    with joined(recipe.speed.device) as ranks:
        return Run(recipe, ranks).finish()


class Run:
    """The state of a run: model, data and progress. Every rank has one."""

    def __init__(self, recipe: Recipe, ranks: Ranks) -> None:
        out = Path(recipe.out)
        self.recipe, self.ranks, self.checkpoints = recipe, ranks, out / "checkpoints"
        check_logs(recipe.logs)
        check_speed(recipe.speed, ranks)
        self.last_saved = setup.resumable(recipe, self.checkpoints)
        setup.seed_everything(recipe.seed, ranks)
        self.model, read = setup.make_model(recipe, setup.model_parts(recipe, out, ranks), ranks, self.last_saved)
        self.feed, self.held_out_feed = open_feed.make_feeds(recipe, self.model, ranks)
        saved = None if self.last_saved is None else checkpoint.read_saved(self.last_saved)
        if saved is not None:
            open_feed.check_same_data(recipe, self.feed, saved.facts["data"])
        self.log = Log(out, recipe.logs, active=ranks.is_first, recipe=recipe.describe())
        self.learner = Learner(self.model, recipe, ranks, read)
        self.step, self.seen = 0, 0  # steps done; samples read on all ranks, used or not
        self.evaluated_at = self.saved_at = -1  # the steps of the last evaluation and the last checkpoint
        self.best: dict[str, Any] | None = None  # loss and step of the best checkpoint
        self.watch = SpikeWatch(recipe.logs.spike)
        if self.last_saved is not None and saved is not None:
            self._resume(self.last_saved, saved)
        self.log.say(setup.summary(recipe, self.model, ranks))
        self._log_data()
        self.source = Prefetcher(self.feed, ranks.device)
        self.position = self.source.position  # the feed's position after the last step
        self.has_ended = False  # whether the data ended before all steps were done
        self.peak, self.meter = matrix_peak(ranks.device), Meter()
        self.losses: list[float] = []
        self.norm, self.learning_rates = math.nan, dict[str, float]()  # gradient norm and rates of the last step
        self.evaluation: HeldOutLoss | None = None  # the last evaluation
        self.questions = open_feed.held_out_questions(recipe, self.held_out_feed)
        self.progress = RunProgress(recipe, self.feed, ranks)

    def finish(self) -> Result:
        """Run the remaining steps, log, evaluate and save as the recipe says, and return the result."""
        recipe, micro_batches = self.recipe, 0.0
        self.learner.module.train()
        while not self.is_over:
            micros = self._take()
            answers, micro_batches, taken = self._counts(micros)
            # the data of at least one rank ended; the sum is the same on all ranks, so all ranks stop together
            self.has_ended = micro_batches < self.ranks.world * recipe.batches.accumulate
            if not self.has_ended:
                self._learn(micros, answers)
                self.step, self.seen = self.step + 1, self.seen + int(taken)
                self.position = self.source.position
            if self.losses:  # empty if the run was already finished
                self._report()
        self.source.close()
        self._log_skipped()
        self.log.close()
        if self.step == 0 and micro_batches:
            batches = counted(recipe.batches.accumulate, "batch", "batches")
            raise RecipeError(
                f"batches.accumulate: a step takes {batches} on each of {counted(self.ranks.world, 'rank')}, but"
                f" the data has only {micro_batches:.0f} in all. Lower `accumulate`, or raise `epochs`."
            )
        if self.step == 0:
            raise RecipeError(f"{recipe.data}: no batch could be made. Skipped, by reason: {dict(self.feed.skipped)}")
        held_out = self.evaluation.loss if self.evaluation else None
        return Result(Path(recipe.out), self.last_saved, self.step, self.losses, held_out)

    @property
    def is_over(self) -> bool:
        """Whether no step is left."""
        return self.has_ended or self.progress.is_over(self.step, self.seen)

    def _resume(self, path: Path, saved: checkpoint.Saved) -> None:
        """Restore the optimizer, the position in the data and the random states from a checkpoint."""
        checkpoint.load_optimizer(path, self.model, self.learner.optimizer)
        open_feed.resume_feed(self.feed, saved.data, self.ranks)
        if len(saved.random) == self.ranks.world:
            checkpoint.restore_random(saved.random[self.ranks.rank], self.ranks.device)
        self.step, self.seen, self.best = saved.step, saved.facts["samples"], saved.facts["best"]
        self.saved_at = saved.step
        self.watch.recent.extend(saved.facts["recent_losses"])
        self.log.say(f"resumed from {path}")

    def _log_data(self) -> None:
        """Log which samples are left out and why.

        At the start of a run, also log the first sample as the model reads it.
        """
        if not self.ranks.is_first:
            return
        held = self.recipe.held_out.path or f"{self.recipe.data}, held out"
        for name, feed, data in (("data", self.feed, self.recipe.data), ("held_out", self.held_out_feed, held)):
            if feed is None or feed.plan is None:
                continue
            left_out = count_left_out(feed.plan)
            if left_out.reasons:
                record = left_out.record(feed.plan, feed.reading.prompt)
                self.log.record("left_out", self.step, {"of": name, **record})
                self.log.warn("\n".join(left_out_lines(record, str(data))))
        template = self.feed.reading.prompter.template
        if self.recipe.stage == "instruct" and template.form is not None and not template.ends_turns:
            self.log.warn("the chat template writes nothing after an answer, so the model does not learn where to stop")
        if self.last_saved is None and (prompt := self.feed.first_prompt()) is not None:
            self.log.say(f"first sample, with [[ ]] around the text that is learned:\n{shown(self.model.tokenizer, prompt)}")

    def _skipped(self) -> dict[str, int]:
        """Return how many samples were skipped when they were read, by reason and over all ranks.

        Every rank must call this method.
        """
        return dict(
            sum((Counter(own) for own in all_gather_objects(dict(self.feed.skipped), self.ranks)), Counter[str]()).most_common()
        )

    def _blank_answers(self) -> int:
        """Return how many answers had no loss because they were empty or blank, over all ranks.

        Every rank must call this method.
        """
        return int(all_reduce_sum([float(self.feed.blank_answers)], self.ranks)[0])

    def _unseen_turns(self) -> int:
        """Return how many texts were left out, because the model cannot see their boxes, over all ranks.

        Every rank must call this method.
        """
        return int(all_reduce_sum([float(self.feed.unseen_turns)], self.ranks)[0])

    def _log_skipped(self) -> None:
        """Log how many answers were blank or out of view, and how many samples were skipped when they were read.

        These samples were usable when their lengths were measured. Later, an image failed to decode or a tar was damaged.
        """
        skipped, blank, unseen = self._skipped(), self._blank_answers(), self._unseen_turns()
        if blank:
            self.log.warn(f"{counted(blank, 'answer')} {noun(blank, 'was', 'were')} empty or blank and had no loss")
        if unseen:
            self.log.warn(f"{counted(unseen, 'turn')} {noun(unseen, 'was', 'were')} left out: the model cannot see the boxes")
        if skipped:
            self.log.record("skipped", self.step, {"samples": sum(skipped.values()), "reasons": skipped})
            self.log.warn(f"samples skipped while reading: {', '.join(f'{why} {n:,}' for why, n in skipped.items())}")

    def _take(self) -> list[MicroBatch]:
        """Return the micro-batches of a step. The last step of the data may have fewer."""
        start = time.perf_counter()
        micros = self.source.take(self.recipe.batches.accumulate)
        self.meter.waited += time.perf_counter() - start
        return micros

    def _counts(self, micros: list[MicroBatch]) -> list[float]:
        """Return the numbers of a step's answer tokens, micro-batches and read samples, over all ranks."""
        own = [sum(sum(m.answers) for m in micros), len(micros), sum(m.batch.taken for m in micros)]
        return all_reduce_sum([float(number) for number in own], self.ranks)

    def _learn(self, micros: list[MicroBatch], answers: float) -> None:
        """Do one optimizer step. If the loss is NaN or a spike, the recipe's rule may skip the step or stop the run."""
        learner, choice, is_first = self.learner, self.recipe.optimizer, not self.losses
        share = self.progress.share(self.step, self.seen)
        self.learning_rates = set_learning_rates(learner.optimizer, schedule_factor(choice.schedule, share, choice.warmup))
        if is_first and self.recipe.speed.recompute == "auto" and self.ranks.device.type == "cuda":
            self.log.say(f"recomputing the activations of {learner.fit(micros[0])} of {counted(len(learner.layers), 'block')}")
        shares = learner.add_gradients(micros, answers)
        self.source.fetch()  # the next batch is decoded and copied while the device works
        if is_first:
            learner.check_gradients()
        self.norm = learner.clip()

        sums = [loss for share in shares for loss in share.tolist()]
        loss = all_reduce_sum([sum(sums)], self.ranks)[0] / max(answers, 1)
        verdict = self.watch.verdict(loss if math.isfinite(self.norm) else math.nan)
        if verdict is None or may_update(verdict, self.recipe, self.log, self.step, loss, micros, sums, self.ranks):
            self.watch.accept(loss)
            learner.optimizer.step()
        elif self.watch.refused >= MAX_REFUSED:
            raise FloatingPointError(
                f"step {self.step + 1}: {MAX_REFUSED} steps in a row were skipped, so the weights may be damaged"
            )
        learner.optimizer.zero_grad(set_to_none=True)
        self.losses.append(loss)
        add_step(self.meter, micros, sums, learner.flops)

    def _report(self) -> None:
        """Log, evaluate and save. Each is done only if it is due at this step and not done yet."""
        choice = self.recipe.checkpoints
        if self.meter.steps and (self.step % self.recipe.logs.every == 0 or self.is_over):
            self._log_steps()
        self.log.say_if_due(
            f"step {self.step}{f'/{self.recipe.steps}' if self.recipe.steps else ''}: loss {self.losses[-1]:.4f}"
        )
        is_due = bool(choice.every) and (self.step % choice.every == 0 or self.is_over)
        is_saving = is_due and self.saved_at != self.step
        # Evaluate before each save, because the loss of the best checkpoint must be the loss of the weights in it.
        is_evaluating = self.step % self.recipe.held_out.every == 0 or self.is_over or (is_saving and choice.keep_best)
        if self.held_out_feed is not None and is_evaluating and self.evaluated_at != self.step:
            self._evaluate()
        if is_saving:
            self._save()

    def _log_steps(self) -> None:
        """Log the steps since the last record."""
        values = self.meter.values(self.ranks.world, self.peak)
        values |= {"norm": self.norm, "lr": self.learning_rates, "samples": self.seen}
        skipped = self._skipped()
        values |= {"skipped": skipped} if skipped else {}
        blank = self._blank_answers()
        values |= {"blank_answers": blank} if blank else {}
        unseen = self._unseen_turns()
        values |= {"unseen_turns": unseen} if unseen else {}
        self.log.record("train", self.step, values)
        self.log.say(step_line(self.step, self.recipe, values))
        self.meter = Meter()

    def _evaluate(self) -> None:
        """Measure the held-out loss, and generate answers if the recipe asks for them."""
        assert self.held_out_feed is not None
        choice, model_with_loss = self.recipe.held_out, self.learner.model_with_loss
        with CountLine("held-out loss", choice.samples, active=self.ranks.is_first) as line:
            self.evaluation = held_out_loss(model_with_loss, self.held_out_feed, choice.samples, self.ranks, add=line.add)
        self.evaluated_at = self.step
        self.log.say(
            f"step {self.step}: held-out loss {self.evaluation.loss:.4f} on {counted(self.evaluation.samples, 'sample')}"
        )
        values: dict[str, Any] = {"loss": self.evaluation.loss, "loss_of": self.evaluation.loss_of}
        if self.questions:
            reading = self.held_out_feed.reading
            with CountLine("held-out answers", len(self.questions), active=self.ranks.is_first) as line:
                answers = held_out_answers(
                    model_with_loss, reading, self.questions, self.ranks, max_new_tokens=choice.answer_tokens, add=line.add
                )  # fmt: skip
            scores = score(answers)
            values["exact_of"] = {name: s.exact for name, s in scores.items()}
            boxes = {name: s.boxes for name, s in scores.items() if s.boxes is not None}
            values |= {"boxes_of": boxes} if boxes else {}
            self.log.say(table(scores, self.evaluation.loss_of))
        self.log.record("held_out", self.step, values)

    def _save(self) -> None:
        """Write a checkpoint, and remove the checkpoints that the recipe does not keep."""
        choice = self.recipe.checkpoints
        if self.evaluation is not None and (self.best is None or self.evaluation.loss < self.best["loss"]):
            self.best = {"loss": self.evaluation.loss, "step": self.step}
        facts = {"samples": self.seen, "best": self.best, "recent_losses": list(self.watch.recent), "data": self.feed.names}
        position = open_feed.gather_positions(self.position, self.ranks)
        state = checkpoint.Saved(self.step, position, checkpoint.all_random_states(self.ranks), facts)
        self.last_saved = checkpoint.save(
            self.checkpoints, self.model, self.learner.optimizer, saved=state, recipe=self.recipe.describe(),
            tokenizers=self.model.tokenizers, ranks=self.ranks,
        )  # fmt: skip
        self.saved_at = self.step
        if self.ranks.is_first:
            kept = f"step_{self.best['step']:08d}" if self.best and choice.keep_best else None
            checkpoint.prune(self.checkpoints, choice.keep, kept)
