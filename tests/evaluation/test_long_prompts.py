"""Test rows whose prompt is longer than the model's context are answered all the same."""

import hashlib
import json
from pathlib import Path

import pytest

from kd.data.fitting import shortening_noted
from kd.data.prompts import build_prompt, choose_shots
from kd.data.rows import Row, write_rows
from kd.errors import DataError
from kd.evaluation.generation import Generated
from kd.evaluation.predict import predict
from kd.evaluation.predictions import read_predictions
from kd.experiment.logits import Logits
from kd.experiment.schema import Generation
from kd.experiment.stages import AnswerSpec, ExtractSpec, PredictSpec
from kd.provenance.manifest import StageRecord
from kd.teacher.answers import read_answers, write_answers
from kd.teacher.extraction import extract_logits

NEW = 4
GENERATION = Generation(max_new_tokens=NEW, batch_size=4)
CONTEXT = 96  # tokens of one character each, one of them BOS


def write_split(folder: Path, **splits: list[Row]) -> None:
    paths = [folder / f"{split}.parquet" for split in splits]
    for path, rows in zip(paths, splits.values(), strict=True):
        write_rows(rows, path)
    StageRecord("data", GENERATION, {}, ()).write(*paths)


def row(name: str, characters: int) -> Row:
    return Row(id=name, task="qa", context="x" * characters, question="?", answers=["yes"])


@pytest.fixture
def folder(tmp_path, tokenizer, random_model):
    for part in (random_model("llama"), tokenizer):
        part.save_pretrained(tmp_path / "model")
    write_split(
        tmp_path,
        train=[row(f"t{number}", 2) for number in range(3)],
        validation=[row("v", 1), row("w", 80)],
        test=[row("short", 2), row("long", 40), row("longest", 80)],
    )
    return tmp_path


def test_a_prediction_keeps_every_row_and_its_manifest_says_what_was_left_out(folder, capsys):
    spec = PredictSpec(dataset="d", shots=1, seed=0, generation=GENERATION)
    predict(spec, folder / "model", folder, folder / "out/predictions.parquet")
    found = read_predictions(folder / "out/predictions.parquet")
    assert [one.id for one in found] == ["short", "long", "longest"]
    notes = json.loads((folder / "out/predict.manifest.json").read_text())["notes"]
    kept = notes["shortened"]
    bare = len(build_prompt(row("r", 1), [])) - 1
    assert kept == {
        "long": {"shots": 0, "characters": None},
        "longest": {"shots": 0, "characters": CONTEXT - NEW - 1 - bare},
    }
    assert "2 of 3 prompts on d had to be shortened" in capsys.readouterr().err
    again = shortening_noted(notes)["longest"].write(row("longest", 80), [], build_prompt)
    assert hashlib.sha256(again.encode()).hexdigest() == found[2].prompt_sha256


def test_a_teacher_answers_with_fewer_examples_and_drops_what_has_no_room(folder, capsys):
    spec = AnswerSpec(dataset="d", shots=1, seed=0, generation=GENERATION)
    write_answers(spec, folder / "model", folder, folder / "out/answers.parquet")
    notes = json.loads((folder / "out/answer.manifest.json").read_text())["notes"]
    assert notes["dropped_too_long"] == 1
    assert [one.id for one in read_answers(folder / "out/answers.parquet")][-1] == "v"
    shots = choose_shots([row(f"t{number}", 2) for number in range(3)], 1, 0)
    assert notes["shots"] == [shot.id for shot in shots]
    said = f"{len(notes.get('shortened', {}))} lost examples and 1 were dropped"
    assert said in capsys.readouterr().err


def test_an_answer_that_takes_more_tokens_than_it_was_generated_in_must_fit(folder, monkeypatch):
    """Extraction and training read a space, the text and EOS: here six tokens, and not four."""
    bare = len(build_prompt(row("r", 1), []))  # a token a character, and BOS
    room = CONTEXT - NEW - bare
    train = [row("exact", room), row("close", room - 1), row("below", room - 2)]
    write_split(folder, train=train, validation=[row("v", 1)], test=[row("short", 2)])
    monkeypatch.setattr(
        "kd.teacher.answers.generate",
        lambda model, tokenizer, prompts, *_, **__: [
            Generated("abcd", [1, 2, 3, 4], "length", 1.0) for _ in prompts
        ],
    )
    spec = AnswerSpec(dataset="d", shots=0, seed=0, generation=GENERATION)
    write_answers(spec, folder / "model", folder, folder / "out/answers.parquet")
    assert [one.id for one in read_answers(folder / "out/answers.parquet")] == ["below", "v"]
    assert json.loads((folder / "out/answer.manifest.json").read_text())["notes"][
        "dropped_too_long"
    ] == len(["exact", "close"])
    model, store = folder / "model", folder / "out/logits"
    extract_logits(ExtractSpec(logits=Logits()), model, folder / "out/answers.parquet", store)


def test_a_question_without_any_room_is_refused_with_the_row(folder):
    longest = Row(id="q", task="qa", context="x", question="?" * 90, answers=["yes"])
    write_split(folder, test=[longest])
    spec = PredictSpec(dataset="d", shots=0, seed=0, generation=GENERATION)
    with pytest.raises(DataError, match="'q'"):
        predict(spec, folder / "model", folder, folder / "out/predictions.parquet")
