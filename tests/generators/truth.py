"""An answerer for the test server that knows what is in each picture, and errs as often as a test asks.

    truth = Truth(draw_scenes(200), error_rate=0.2)
    with OpenAIServer(truth.answer) as server:
        ...  # a step asks about the pictures
    precision, recall = precision_recall(rejected, {(one.key, one.text) for one in truth.wrong()})

It finds the picture by its bytes, by its look (see `Album`), or by its key in the text ("picture-0123456789ab"). From the last
message of the user it takes what to do: "How many red circles are there?" is answered with a number, claims with yes or no if
the text has a question mark or says "yes or no", everything else with a caption. `facts.py` has the grammar. If the text has
the lines "Question: ..." and "Answer: ...", it judges the answer: with yes or no, or with 5 or 1 if it says "from 1".
"""

from __future__ import annotations

import math
import random
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tests.generators.chat import ChatRequest, Reply, share_of
from tests.generators.facts import Fact, asked_count, facts_in, facts_of, falsified
from tests.generators.scenes import Album, Scene

NO_PICTURE = "I cannot see a picture that I know."
OTHER = {"yes": "no", "no": "yes", "5": "1", "1": "5"}
TURN = re.compile(r"^Question: (?P<question>.*)\nAnswer: (?P<answer>.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Said:
    """What was answered to a question about a picture. `planted` is None for the truth, or the error: count, colour, place,
    or verdict (yes instead of no, 1 instead of 5, or the reverse)."""

    key: str
    question: str
    text: str
    planted: str | None


class Truth:
    """Answers about the scenes of an album.

    `error_rate` is the share of wrong answers. Which ones is a hash of picture, question and `seed`; with `varies`, also of
    the request's seed and of the number of the answer, so that several answers to one question differ. `is_wrong`, if given,
    replaces the rate: it is called with the scene and the question. An answer that is repeated is recorded once.
    """

    def __init__(
        self,
        scenes: Iterable[Scene],
        *,
        error_rate: float = 0.0,
        seed: int = 0,
        varies: bool = False,
        is_wrong: Callable[[Scene, str], bool] | None = None,
    ) -> None:
        self.album = scenes if isinstance(scenes, Album) else Album(scenes)
        self.error_rate, self.seed, self._varies, self._is_wrong = error_rate, seed, varies, is_wrong
        self.unknown: list[ChatRequest] = []  # requests without a picture of the album
        self._said: dict[tuple[object, ...], Said] = {}
        self._lock = threading.Lock()

    def answer(self, request: ChatRequest) -> str | Reply:
        """Answer a request: the `answer` of an OpenAIServer. A verdict has the probability 0.9, and its opposite 0.1."""
        scene = self.album.find(request.images, request.text)
        if scene is None:
            with self._lock:
                self.unknown.append(request)
            return NO_PICTURE
        text = self.say(scene, request.question, *((request.seed, request.choice) if self._varies else ())).text
        if text not in OTHER or (text.isdigit() and not TURN.search(request.question)):
            return text
        return Reply(text, first_token={text: math.log(0.9), OTHER[text]: math.log(0.1)})

    def say(self, scene: Scene, question: str, *varied: object) -> Said:
        """Answer a question about a scene and record the answer."""
        parts = ("truth", self.seed, scene.key, question, *varied)
        is_wrong = self._is_wrong(scene, question) if self._is_wrong else share_of(*parts) < self.error_rate
        text, planted = _answered(scene, question, random.Random(repr(parts)) if is_wrong else None)
        said = Said(scene.key, question, text, planted)
        with self._lock:
            self._said[scene.key, question, *varied] = said
        return said

    def said(self) -> list[Said]:
        """Return all answers, those to a question with other seeds too, without repetitions."""
        with self._lock:
            return list(self._said.values())

    def wrong(self) -> list[Said]:
        """Return the answers in which an error was planted."""
        return [one for one in self.said() if one.planted]


def _answered(scene: Scene, question: str, wrong: random.Random | None) -> tuple[str, str | None]:
    """Return the answer, which is false if `wrong` is given, and the kind of its error."""
    if turn := TURN.search(question):
        is_right = all(fact.is_true_of(scene) for fact in _claimed(**turn.groupdict())) == (wrong is None)
        right, false = ("5", "1") if "from 1" in question else ("yes", "no")
        return (right if is_right else false), None if wrong is None else "verdict"
    if asked := asked_count(question):
        count = asked.counted(scene)
        if wrong is None:
            return str(count), None
        return str(wrong.choice([other for other in (count - 1, count + 1) if other >= 0])), "count"
    claims = facts_in(question)
    if claims and ("?" in question or "yes or no" in question.lower()):
        is_true = all(fact.is_true_of(scene) for fact in claims)
        return ("yes" if is_true == (wrong is None) else "no"), None if wrong is None else "verdict"
    facts = facts_of(scene)
    planted = None
    if wrong is not None:
        at = wrong.randrange(len(facts))
        facts[at], planted = falsified(facts[at], scene, wrong)
    return " ".join(fact.text() for fact in facts), planted


def _claimed(question: str, answer: str) -> list[Fact]:
    """Return the claims of an answer. A number that answers "How many red circles are there?" is one."""
    asked, number = asked_count(question), re.search(r"\d+", answer)
    return [replace(asked, count=int(number[0]))] if asked and number else facts_in(answer)


def auc(low: Sequence[float], high: Sequence[float]) -> float:
    """Return the area under the ROC curve: how often a value of `low` is below one of `high`. Equal ones count half."""
    return sum((a < b) + (a == b) / 2 for a in low for b in high) / (len(low) * len(high))


def precision_recall(found: Iterable[object], wrong: Iterable[object]) -> tuple[float, float]:
    """Return how many of the found are wrong, and how many of the wrong were found, as shares. Of nothing: 1."""
    found, wrong = set(found), set(wrong)
    both = len(found & wrong)
    return both / len(found) if found else 1.0, both / len(wrong) if wrong else 1.0


def claims_of(scenes: Sequence[Scene], *, seed: int = 0) -> list[tuple[Scene, str, bool]]:
    """Return for each scene a true and a false claim: the scene, the sentence, and whether it is true."""
    found = []
    for scene in scenes:
        rng = random.Random(f"claims {seed} {scene.key}")
        fact = rng.choice(facts_of(scene))
        found += [(scene, fact.text(), True), (scene, falsified(fact, scene, rng)[0].text(), False)]
    return found
