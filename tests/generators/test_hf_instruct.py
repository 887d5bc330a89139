"""A text model of transformers answers the step `instruct`; a tiny model knows no form, so each answer is counted."""

from tests.generation.colours import Direct
from tests.generators.written_models import write_text_model
from tests.rows import document, table
from vlmdata.recipe import parse
from vlmdata.row import alive


def test_answers_of_a_tiny_text_model_are_counted_by_reason(tmp_path):
    generator = {"hf": {"model": str(write_text_model("Qwen2", tmp_path / "model")), "precision": "fp32"}}
    shown = {
        "generator": generator,
        "joined": True,
        "max_tokens": 24,
        "examples": {"conversation": [], "detail": []},
    }
    kinds = {"conversation": 1, "detail": 1}
    steps = [
        {"instruct": {**shown, "kinds": kinds, "systems": dict.fromkeys(kinds, "Write about a picture."), "require": False}}
    ]
    (step,) = parse({"source": {"type": "url_list", "path": "urls.parquet"}, "steps": steps}).steps
    step.check()
    rows = table([{**document({"width": 9, "height": 9}, text), "roles": None} for text in ("a dog", "a cat on a sofa", "")])
    done = step.run(rows, Direct())
    assert alive(done).all()
    answers = [one for some in done["instruct.answers"].to_pylist() for one in some]
    assert len(answers) == 4 and all(one["failure"] is None and one["prompt_tokens"] > 50 for one in answers)
    outcomes = dict(step.outcomes(done))
    assert outcomes.pop("no_text") == 1 and sum(outcomes.values()) == 4
    assert set(outcomes) <= {"length", "bad_form", "empty", "accepted"}
