"""An answerer for the test server that writes questions and answers about a scene, and errs as often as a test asks.

    truth = TruthInTurns(draw_scenes(200), rates={"wrong_count": 0.2, "bad_form": 0.05})
    with OpenAIServer(truth.answer) as server:
        ...  # the step `instruct` asks about the scenes
    truth.planted()  # {"wrong_count": 31, "bad_form": 9}

It finds the scene by its key in the text, and the kind by the system text of the step `instruct`. `facts.py` has the grammar of
the answers.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from tests.generators.chat import ChatRequest, Reply, share_of
from tests.generators.facts import Fact, facts_in, facts_of
from tests.generators.scenes import PAINT, PLACES, SHAPES, Album, Scene
from vlmdata.generation.instruct_prompts import CONVERSATION, DETAIL, EXAMPLES, KINDS, REASONING, SYSTEMS
from vlmdata.generation.question_form import read_turns

KINDS_OF_THINGS = [f"{colour} {shape}" for colour in PAINT for shape in SHAPES]
UNSEEN = "wrong_place"  # an error of a turn that no rule sees
TURN_ERRORS = ("wrong_count", "absent_object", "source_words", "coordinates", "unsure", "refusal", "placeholder", UNSEEN)
ANSWER_ERRORS = ("bad_form", "uneven", "empty", "length", "copied", "too_long", "filter")
BEFORE = {"source_words": "The captions say this. ", "refusal": "I'm sorry, I can only say this. "}
AFTER = {
    "coordinates": " It ends at [0.123, 0.456, 0.5, 0.75].",
    "unsure": " The reason cannot be determined.",
    "placeholder": " <image>",
}
OPENINGS = ("Name what stands out first.", "Say what else can be seen.", "Say what is left to mention.")


@dataclass(frozen=True)
class Written:
    """A turn that was written: its question, its answer, and the planted error or None."""

    question: str
    answer: str
    planted: str | None


@dataclass(frozen=True)
class Said:
    """An answer about a scene: its turns, and the error of the whole answer or None."""

    scene: Scene
    kind: str
    turns: tuple[Written, ...]
    planted: str | None
    text: str = field(repr=False)


class TruthInTurns:
    """Answers about the scenes of an album. `rates` maps errors to the share of turns, or of answers, that have them.

    Which ones is a hash of scene, kind and error. A turn or an answer has at most one error, and the turns of an answer with an
    error of the whole answer have none.
    """

    def __init__(self, scenes: Iterable[Scene], rates: Mapping[str, float] | None = None) -> None:
        self.album = Album(scenes)
        self.rates = dict(rates or {})
        self._said: dict[tuple[str, str], Said] = {}
        self._lock = threading.Lock()

    def answer(self, request: ChatRequest) -> Reply:
        """Answer a request: the `answer` of an OpenAIServer."""
        scene = self.album.find((), request.text)
        assert scene is not None, "the prompt names no scene of the album"
        kind = next(one for one in KINDS if request.text.startswith(SYSTEMS[one]))
        said = self._write(scene, kind)
        with self._lock:
            self._said[scene.key, kind] = said
        return Reply(said.text, {"length": "length", "filter": "content_filter"}.get(said.planted or "", "stop"))

    def said(self) -> list[Said]:
        """Return all answers, without repetitions."""
        with self._lock:
            return list(self._said.values())

    def planted(self) -> dict[str, int]:
        """Return the number of planted errors, by the reason for which the step should reject them.

        An answer that cannot be read counts once. One with a copied text counts once for each turn.
        """
        counts: Counter[str] = Counter()
        for said in self.said():
            if said.planted:
                counts[said.planted] += len(said.turns) if said.planted == "copied" else 1
            else:
                counts.update(turn.planted for turn in said.turns if turn.planted)
        return dict(counts)

    def facts(self) -> list[tuple[str, Fact, bool]]:
        """Return (key of the scene, fact, is it true) for each fact of all turns, also of rejected ones."""
        turns = [(said.scene, turn) for said in self.said() for turn in said.turns]
        return [(scene.key, fact, fact.is_true_of(scene)) for scene, turn in turns for fact in facts_in(turn.answer)]

    def _draw(self, errors: Iterable[str], *parts: object) -> str | None:
        share = share_of("turns", *parts)
        for error in errors:
            share -= self.rates.get(error, 0.0)
            if share < 0:
                return error
        return None

    def _write(self, scene: Scene, kind: str) -> Said:
        rng = random.Random(f"{scene.key} {kind}")
        facts = facts_of(scene)
        rng.shuffle(facts)
        groups = [facts[at::3] for at in range(3)] if kind == CONVERSATION else [facts]
        questions = {DETAIL: [""], REASONING: ["Which part is looked at first, and why?"]}.get(kind, list(OPENINGS))
        planted = self._draw(ANSWER_ERRORS, "answer", scene.key, kind)
        planted = "bad_form" if kind == DETAIL and planted == "uneven" else planted  # a description has no questions
        turns = []
        for number, (question, group) in enumerate(zip(questions, groups, strict=True)):
            error = None if planted else self._draw(TURN_ERRORS, "turn", scene.key, kind, number)
            turns.append(_turn(question, group, scene, error, rng))
        if planted == "copied":
            shown = EXAMPLES[kind][0][1]
            text = shown if kind == DETAIL else read_turns(shown)[0][-1].answer
            turns[0] = replace(turns[0], answer=text)
        return Said(scene, kind, tuple(turns), planted, _as_text(kind, turns, planted))


def _turn(question: str, facts: list[Fact], scene: Scene, error: str | None, rng: random.Random) -> Written:
    facts = list(facts)
    if error == "wrong_count":
        shown = Counter(f"{thing.colour} {thing.shape}" for thing in scene.things)
        kind = rng.choice(sorted(shown))
        colour, shape = kind.split()
        facts.append(Fact(rng.choice([n for n in (shown[kind] - 1, shown[kind] + 1) if n > 0]), colour, shape))
    elif error == "absent_object":
        present = {f"{thing.colour} {thing.shape}" for thing in scene.things}
        colour, shape = rng.choice([kind for kind in KINDS_OF_THINGS if kind not in present]).split()
        facts.append(Fact(None, colour, shape, rng.choice(PLACES)))
    elif error == UNSEEN:
        thing = rng.choice(scene.things)
        there = {scene.place(one) for one in scene.things if (one.colour, one.shape) == (thing.colour, thing.shape)}
        facts.append(Fact(None, thing.colour, thing.shape, rng.choice([place for place in PLACES if place not in there])))
    before = BEFORE.get(error or "", "")
    after = AFTER.get(error or "", "")
    text = before + (" ".join(fact.text() for fact in facts) or "This is all.") + after
    return Written(question, text, error)


def _as_text(kind: str, turns: list[Written], planted: str | None) -> str:
    if kind == DETAIL:
        text = turns[0].answer
        uneven = f"Question:\nWhat is it?\n===\nAnswer:\n{text}"
        whole = {"bad_form": uneven, "uneven": uneven, "empty": " ", "length": text[: len(text) // 2]}
    else:
        form = "\n".join(f"Question:\n{turn.question}\n===\nAnswer:\n{turn.answer}\n===" for turn in turns)
        text = form
        whole = {
            "bad_form": "\n".join(f"Q: {turn.question}\nA: {turn.answer}" for turn in turns),
            "uneven": f"{form}\nQuestion:\nAnd what else?",
            "empty": f"{form}\nQuestion:\nAnd what else?\n===\nAnswer:\n",
            "length": form.partition("Answer:")[0],
        }
    return {**whole, "too_long": text + " again" * 4_000}.get(planted or "", text)
