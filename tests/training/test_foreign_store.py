"""A store that belongs to other answers, or to another teacher, trains nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kd.data.rows import write_rows
from kd.errors import ArtifactError
from kd.experiment.logits import Logits
from kd.experiment.methods import Method
from kd.experiment.schema import Training
from kd.experiment.stages import DistillSpec
from kd.logits import LogitWriter, Origin
from kd.models.offsets import encode_answer_with_ends
from kd.provenance.manifest import StageRecord, path_digest
from kd.teacher.answers import _write
from kd.training.distillation import distill

SPEC = DistillSpec(
    dataset="d",
    method=Method(loss="uld"),
    training=Training(learning_rate=1e-3, epochs=1),
    fraction=100,
    seed=0,
)


@pytest.fixture
def inputs(tmp_path: Path, rows: Any, answers: Any, teacher_folder: Path) -> dict[str, Path]:
    """What a run reads, each with the manifest of its stage, but for the store."""
    files = {split: tmp_path / "data" / f"{split}.parquet" for split in ("train", "validation")}
    for file in files.values():
        write_rows(rows, file)
    StageRecord("data", Logits(), {}, ()).write(*files.values())
    written = tmp_path / "teacher" / "answers.parquet"
    _write([*answers[:6], *(replace(row, split="validation") for row in answers[6:])], written)
    StageRecord("answer", Logits(), {}, ()).write(written)
    models = {"student": teacher_folder, "teacher": teacher_folder}
    return {**models, **files, "answers": written, "logits": tmp_path / "teacher" / "logits"}


def write_store(folder: Path, answers: Any, tokenizer: Any, origin: Origin) -> None:
    with LogitWriter(folder, vocabulary=50, epsilon=0.1, origin=origin) as writer:
        for answer in answers:
            ids, ends = map(torch.tensor, encode_answer_with_ends(tokenizer, answer.answer))
            writer.add(answer.id, ids % 50, torch.randn(len(ids), 50), ends=ends)
    StageRecord("extract", Logits(), {}, ()).write(folder)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"answers": "0" * 64}, "of another file of answers .SHA-256 000000000000"),
        ({"answers": None}, "of another file of answers .unknown"),
        ({"model": "1" * 64}, "of another teacher .SHA-256 111111111111"),
    ],
)
def test_a_store_of_something_else_is_refused(
    tmp_path: Path,
    inputs: dict[str, Path],
    answers: Any,
    tokenizer: Any,
    change: dict[str, str | None],
    refusal: str,
) -> None:
    right = Origin(answers=path_digest(inputs["answers"]), model=path_digest(inputs["teacher"]))
    write_store(inputs["logits"], answers, tokenizer, right.model_copy(update=change))
    with pytest.raises(ArtifactError, match=rf"teacher/logits: these logits are {refusal}"):
        distill(SPEC, inputs, tmp_path / "run", tmp_path / "checkpoints")
    assert not (tmp_path / "run").exists()


def test_the_store_of_these_answers_is_read(
    tmp_path: Path, inputs: dict[str, Path], answers: Any, tokenizer: Any
) -> None:
    """Also where the teacher's model is not given, as most methods do not need it."""
    origin = Origin(answers=path_digest(inputs["answers"]), model=path_digest(inputs["teacher"]))
    write_store(inputs["logits"], answers, tokenizer, origin)
    del inputs["teacher"]
    distill(SPEC, inputs, tmp_path / "run", tmp_path / "checkpoints")
    assert (tmp_path / "run" / "train.jsonl").exists()


def test_a_finished_run_loads_no_model_when_it_is_called_again(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    del inputs["teacher"], inputs["logits"]
    spec = SPEC.model_copy(update={"method": Method(loss="none")})
    distill(spec, inputs, tmp_path / "run", tmp_path / "checkpoints")
    before = (tmp_path / "run/distill.manifest.json").read_bytes()

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded for nothing")

    monkeypatch.setattr("kd.training.distillation.load_model", refused)
    distill(spec, inputs, tmp_path / "run", tmp_path / "checkpoints")
    assert (tmp_path / "run/distill.manifest.json").read_bytes() == before
