"""Prompts of the step `instruct`: system texts, prompts, questions and examples for each kind, on scenes that are invented.

The kinds and what a model is given for each follow LLaVA-Instruct (Liu et al. 2023, 2304.08485, and
github.com/haotian-liu/LLaVA, playground/data/prompts). The texts are vlmdata's own.
"""

from __future__ import annotations

from vlmdata.generation.question_form import ANSWER, QUESTION, SEPARATOR

CONVERSATION, DETAIL, REASONING = KINDS = ("conversation", "detail", "reasoning")
WEIGHTS = {CONVERSATION: 58.0, DETAIL: 23.0, REASONING: 77.0}


def _paragraphs(block: str) -> str:
    """Return a block of lines as paragraphs of one line each. An empty line ends a paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in block.strip().split("\n\n"))


def _dialogue(*turns: tuple[str, str]) -> str:
    """Return questions with their answers in the form that the model must use."""
    parts = (f"{QUESTION}\n{question}\n{SEPARATOR}\n{ANSWER}\n{_paragraphs(answer)}\n{SEPARATOR}" for question, answer in turns)
    return "\n".join(parts)


_ROLE = """
You write training texts for an assistant that sees pictures. You do not see the picture. You are given some sentences about
it{boxes}. Write as if you looked at the picture itself: never refer to the material that you were given, and never write that
something is unknown.
"""
_BOXES = """, and for some objects a line with the object's name and its place [x1, y1, x2, y2]: left, top, right and bottom
edge, as fractions of the width and the height"""
_PLACES = "Turn the numbers into plain words: how many objects there are, where they are, and how they stand to each other."
_FORM = f"Use exactly this form, and write nothing before or behind it:\n{_dialogue(('(the question)', '(the answer)'))}"
_CONVERSATION = """
Write a dialogue between a person who asks about the picture and the assistant. Let the person ask three to six different
things, such as which objects are there, how many there are, what they look like, what somebody does, and what is next to what.
Ask only what the sentences settle, so that the answer is certain: a thing is surely there, or it surely is not. End with one
question that needs knowledge or thought beyond the picture, and answer it at greater length.
"""
_DETAIL = f"""
Describe the picture thoroughly, in one or two paragraphs of plain prose. {_PLACES} Add nothing that you were not given. Write
the text only, without a heading.
"""
_REASONING = f"""
Think of one question that cannot be answered by naming what is visible: the reader has to look first, and then to use knowledge
or thought, for example why something happens, what may happen next, or what somebody should do. The question must not give away
what the picture shows. Then answer it step by step, with what is visible as the reason. {_PLACES}
"""

SYSTEMS = {
    CONVERSATION: f"{_paragraphs(_ROLE.format(boxes='') + _CONVERSATION)}\n\n{_FORM}\nRepeat this form for each question.",
    DETAIL: _paragraphs(_ROLE.format(boxes=_BOXES) + _DETAIL),
    REASONING: f"{_paragraphs(_ROLE.format(boxes=_BOXES) + _REASONING)}\n\n{_FORM}",
}
PROMPTS = {
    CONVERSATION: "{examples}Sentences:\n{captions}\n\nText:\n",
    DETAIL: "{examples}Sentences:\n{captions}\n\nObjects:\n{boxes}\n\nText:\n",
    REASONING: "{examples}Sentences:\n{captions}\n\nObjects:\n{boxes}\n\nText:\n",
}
QUESTIONS = (  # for detailed descriptions; one is drawn for each row
    "Describe this picture in detail.",
    "What does this picture show? Please be thorough.",
    "Tell me everything that can be seen here.",
    "Give a full account of this scene.",
    "Walk me through this photo, from the main subject to the background.",
    "Please describe the picture for somebody who cannot see it.",
    "What is going on in this picture? Go into detail.",
    "Write a detailed description of this image.",
    "Can you explain at length what is visible here?",
    "Which things are in this picture, and where are they?",
    "I would like to know all about this image. What is in it?",
    "Describe what you see, with the number of things and their places.",
)

_HARBOUR = (
    "A waiter with a tray walks past café tables at a harbour.\nTwo guests drink coffee beside the water.\n"
    "Three white boats lie behind the terrace of a café.\nPeople sit in the sun at a small harbour."
)
_HARBOUR_BOXES = (
    "person: [0.402, 0.281, 0.497, 0.803]\nperson: [0.118, 0.455, 0.236, 0.822]\nperson: [0.251, 0.449, 0.349, 0.817]\n"
    "boat: [0.031, 0.152, 0.288, 0.377]\nboat: [0.352, 0.171, 0.604, 0.369]\nboat: [0.661, 0.166, 0.948, 0.391]\n"
    "cup: [0.214, 0.601, 0.237, 0.634]\ncup: [0.255, 0.604, 0.277, 0.636]"
)
_YARD = (
    "A girl in rubber boots feeds a brown pony over a fence.\nA pony stretches its neck towards a child with a carrot.\n"
    "A child and a small horse on a muddy farm, with a bucket on the ground."
)
_YARD_BOXES = "person: [0.105, 0.248, 0.311, 0.934]\nhorse: [0.442, 0.121, 0.973, 0.905]\ncarrot: [0.318, 0.402, 0.395, 0.447]"
_HARBOUR_DETAIL = """
The picture shows the terrace of a café at a small harbour on a sunny day. On the left, two guests sit close together with
coffee; their two cups stand between them. A waiter with a tray passes just left of the centre.

Behind the terrace, three white boats lie side by side across the whole width of the scene, one on the left, one in the middle
and one on the right.
"""
_YARD_REASONING = """
The child on the left reaches out to a pony that takes up most of the right half of the picture, with a carrot between the two.
A pony cannot see well what is directly in front of its mouth, so it might nip the fingers that hold the food. It would be safer
to lay the carrot on a flat hand. The fence between the two is helpful, since it keeps the heavy animal at a distance, and the
boots give a firm stand on the slippery mud.
"""
_HARBOUR_REASONING = """
Two guests sit outside with coffee, and a waiter serves the open terrace, which is usual only in the warm months. The light is
strong, and all three boats lie still behind the terrace instead of being out on the water. Together this points to a summer
morning or early afternoon, when the catch has been brought in and people take a break.
"""
_REST = """
The terrace lies in the sun and right at the water, where a light wind keeps the air fresh. Guests can rest with a drink, look
at the boats, and watch what happens in the harbour, so there is something to see without any effort.
"""
_BOOTS = """
She wears rubber boots. The ground of the farm is muddy, and such boots keep the feet dry and are easy to wash afterwards.
"""
EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {  # (what is given, the text)
    CONVERSATION: (
        (
            _HARBOUR,
            _dialogue(
                ("How many boats are in the harbour?", "There are three boats, and all of them are white."),
                ("What are the two guests drinking?", "They are drinking coffee beside the water."),
                ("Is the waiter sitting down?", "No, the waiter is walking past the tables and carries a tray."),
                ("Why may guests like this place on a warm day?", _REST),
            ),
        ),
        (
            _YARD,
            _dialogue(
                ("Which animal is behind the fence?", "A brown pony stands behind the fence."),
                ("What does the girl give it?", "She holds out a carrot."),
                ("What kind of shoes does she wear, and why are they a good choice?", _BOOTS),
            ),
        ),
    ),
    DETAIL: ((f"{_HARBOUR}\n\nObjects:\n{_HARBOUR_BOXES}", _paragraphs(_HARBOUR_DETAIL)),),
    REASONING: (
        (
            f"{_YARD}\n\nObjects:\n{_YARD_BOXES}",
            _dialogue(("What should the child keep in mind to stay safe here?", _YARD_REASONING)),
        ),
        (
            f"{_HARBOUR}\n\nObjects:\n{_HARBOUR_BOXES}",
            _dialogue(("What time of the year and of the day is likely, and what speaks for it?", _HARBOUR_REASONING)),
        ),
    ),
}
