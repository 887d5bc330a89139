"""The training run, from recipe to checkpoints, top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vlmdata.step import RecipeError
from vlmdata_train import checkpoint, setup
from vlmdata_train.blocks import blocks_of, compile_blocks, recompute
from vlmdata_train.broken import goes_on
from vlmdata_train.distributed import Ranks, joined, spread, syncing, total, whole
from vlmdata_train.evaluate import held_out_answers, held_out_loss, score, table
from vlmdata_train.log import Log, Meter, SpikeWatch, check_logs, flops_per_token, matrix_peak
from vlmdata_train.memory import CudaMemory, fit_memory
from vlmdata_train.optim import make_optimizer, parameter_groups, schedule_factor, set_rates
from vlmdata_train.recipe import Part, Recipe
from vlmdata_train.step import Step, check_head
from vlmdata_train.upcoming import Upcoming

MAX_REFUSED = 20  # skipped steps in a row that no single bad sample explains


@dataclass(frozen=True)
class Result:
    """What a run did. `losses` are those of the steps that this process made, per answer token."""

    out: Path
    checkpoint: Path | None  # the last one; none where the recipe saves none
    steps: int
    losses: list[float]
    held_out: float | None


def run_training(recipe: Recipe) -> Result:
    """Train, or go on from the last checkpoint in `recipe.out`; done already, it returns at once."""
    if recipe.speed.threads is not None:
        torch.set_num_threads(recipe.speed.threads)
    with joined(recipe.speed.device) as ranks:
        return _run(recipe, ranks)


def _run(recipe: Recipe, ranks: Ranks) -> Result:
    out = Path(recipe.out)
    checkpoints = out / "checkpoints"
    check_logs(recipe.logs)
    resumed = setup.resumable(recipe, checkpoints)
    setup.seed_everything(recipe.seed, ranks)
    parts = setup.model_parts(recipe, out, ranks)
    model = setup.make_model(recipe, parts, ranks)
    check_head(model)
    train_feed, held_feed = setup.make_feeds(recipe, model, ranks)
    log = Log(out, recipe.logs, active=ranks.is_first, recipe=recipe.describe())

    # Order matters: freeze, then compile, then spread, then the optimizer (whose parameters spreading replaces).
    trained = {name: not recipe.parts.get(name, Part()).frozen for name in model.parts()}
    step_of = Step(model, chunk=recipe.speed.loss_chunk, autocast=recipe.speed.precision == "autocast")
    layers = blocks_of(model.language)
    if recipe.speed.recompute == "all":
        recompute(layers, [True] * len(layers))
    if recipe.speed.compile and ranks.device.type == "cpu":
        raise RecipeError("speed.compile: attention on a CPU goes segment by segment and would be compiled for each batch")
    if recipe.speed.compile:
        compile_blocks(layers + blocks_of(model.encoder))
    costs = flops_per_token(model.parts(), trained)
    module = spread(step_of, layers, ranks, recipe.speed.parallel)
    choice = recipe.optimizer
    groups = parameter_groups(model.parts(), recipe.parts, recipe.lr, choice.weight_decay)
    optimizer = make_optimizer(groups, choice)
    weights = [p for group in optimizer.param_groups for p in group["params"]]

    step, seen, best, watch = 0, 0, None, SpikeWatch(recipe.logs.spike)
    if resumed is not None:
        saved = checkpoint.read_saved(resumed)
        checkpoint.load_model(resumed, model)
        checkpoint.load_optimizer(resumed, model, optimizer)
        setup.place_feed(train_feed, saved.data, ranks)
        if len(saved.random) == ranks.world:
            checkpoint.restore_random(saved.random[ranks.rank], ranks.device)
        step, seen, best = saved.step, saved.facts["samples"], saved.facts["best"]
        watch.recent.extend(saved.facts["recent_losses"])
        log.say(f"resumed from {resumed}")
    log.say(setup.summary(recipe, model, ranks))

    source = Upcoming(train_feed, ranks.device)
    peak, meter, losses, held = matrix_peak(ranks.device), Meter(), [], None
    held_data = recipe.held_out.path or recipe.data
    asked = list(setup.some_samples(held_feed.reading, held_data, recipe.held_out.answers)) if held_feed is not None else []
    whole_run = setup.Progress(recipe)
    last_saved = resumed
    checked = False
    module.train()
    while not whole_run.is_over(step, seen):
        waited = time.perf_counter()
        micros = source.take(recipe.batches.accumulate)
        meter.waited += time.perf_counter() - waited
        own = [sum(sum(m.answers) for m in micros), len(micros), sum(len(m.answers) for m in micros)]
        answers, rows, samples = total([float(number) for number in own], ranks)
        if rows < ranks.world * recipe.batches.accumulate:  # some rank's data ended: all stop together
            break
        factor = schedule_factor(choice.schedule, whole_run.share(step, seen), choice.warmup)
        rates = set_rates(optimizer, factor)
        if recipe.speed.recompute == "auto" and not checked and ranks.device.type == "cuda":
            state_bytes = setup.optimizer_bytes(weights, choice.compact)
            again = fit_memory(layers, module, micros[0], state_bytes, CudaMemory(ranks.device), ranks)
            log.say(f"recomputing {again} of {len(layers)} blocks")

        shares = []
        for number, micro in enumerate(micros):
            with syncing(module, number == len(micros) - 1):
                summed, of_sample = module(micro)
                # Every answer token of the step weighs the same, however the step is cut into micro-batches and ranks.
                (summed * (ranks.world / max(answers, 1))).backward()
            shares.append(of_sample)
        source.fetch()  # the next batch is decoded and copied while the device works
        if not checked:
            _check_gradients(model)
            checked = True
        norm = float(whole(nn.utils.clip_grad_norm_(weights, choice.clip)))

        sums = [loss for share in shares for loss in share.tolist()]
        loss = total([sum(sums)], ranks)[0] / max(answers, 1)
        verdict = watch.verdict(loss if norm == norm and norm != float("inf") else float("nan"))
        if verdict is None or goes_on(verdict, recipe, log, step, loss, micros, sums, ranks):
            watch.accept(loss)
            optimizer.step()
        elif watch.refused >= MAX_REFUSED:
            raise FloatingPointError(f"step {step + 1}: {MAX_REFUSED} steps in a row were skipped; the weights may be damaged")
        optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + int(samples)
        losses.append(loss)
        setup.count(meter, micros, sums, costs, model)

        is_last = whole_run.is_over(step, seen)
        if step % recipe.logs.every == 0 or is_last:
            values = {**meter.values(ranks.world, peak), "norm": norm, "lr": rates, "samples": seen}
            log.record("train", step, values)
            log.say(setup.line(step, recipe, values))
            meter = Meter()
        every, keep_best = recipe.checkpoints.every, recipe.checkpoints.keep_best
        is_saving = bool(every) and (step % every == 0 or is_last)
        # What is saved is evaluated too: the best checkpoint is the one whose own weights were measured.
        if held_feed is not None and (step % recipe.held_out.every == 0 or is_last or (is_saving and keep_best)):
            held = held_out_loss(step_of, held_feed, recipe.held_out.samples, ranks)
            log.say(f"step {step}: held-out loss {held.loss:.4f} on {held.samples} samples")
            values = {"loss": held.loss, "loss_of": held.loss_of}
            if asked:
                given = held_out_answers(step_of, held_feed.reading, asked, ranks, max_new_tokens=recipe.held_out.answer_tokens)
                scores = score(given)
                values |= {"exact_of": {name: s.exact for name, s in scores.items()}}
                log.say(table(scores, held.loss_of))
            log.record("held_out", step, values)
        is_best = held is not None and (best is None or held.loss < best["loss"])
        if is_saving:
            if is_best and held is not None:
                best = {"loss": held.loss, "step": step}
            facts = {"samples": seen, "best": best, "recent_losses": list(watch.recent)}
            position = setup.feed_state(source.position, ranks)
            state = checkpoint.Saved(step, position, checkpoint.all_random_states(ranks), facts)
            last_saved = checkpoint.save(
                checkpoints, model, optimizer, saved=state, recipe=recipe.describe(), tokenizer=model.tokenizer, ranks=ranks
            )
            if ranks.is_first:
                kept = f"step_{best['step']:08d}" if best and keep_best else None
                checkpoint.prune(checkpoints, recipe.checkpoints.keep, kept)
    source.close()
    log.close()
    if step == 0:
        raise RecipeError(f"{recipe.data}: no batch could be made; skipped: {dict(train_feed.skipped)}")
    return Result(out, last_saved, step, losses, held.loss if held else None)


def _check_gradients(model: nn.Module) -> None:
    """A weight that should be trained and gets no gradient stays as it is, silently: say so at the first step."""
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if without:
        raise RuntimeError(f"{len(without)} weights should be trained and have no gradient, first {without[0]}")
    with_one = [name for name, p in model.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not with_one, f"the frozen weight {with_one[0]} has a gradient"
