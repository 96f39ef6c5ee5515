"""Random teachers of three kinds that have answered a few rows."""

from pathlib import Path

import pytest

from kd.data.prompts import build_prompt
from kd.data.rows import Row, write_rows
from kd.experiment.logits import Logits
from kd.experiment.models import TokenizerSpec
from kd.experiment.schema import Generation
from kd.experiment.stages import AnswerSpec
from kd.models.architectures import Vocabulary, build_model
from kd.models.tokenizers import train_tokenizer
from kd.provenance.manifest import StageRecord
from kd.teacher.answers import Answer, read_answers, write_answers

WORDS = "red blue green white black grey pink gold".split()


def rows(split: str) -> list[Row]:
    return [
        Row(
            id=f"{split}-{i}",
            task="qa",
            context=f"the {word} cat " * (i + 1),
            question="which",
            answers=[word],
        )
        for i, word in enumerate(WORDS)
    ]


@pytest.fixture(scope="session", params=["llama", "opt", "t5"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random teacher that has answered eight training and eight validation rows."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    record = StageRecord("data", Logits(), {}, ())
    files = [folder / "data" / f"{split}.parquet" for split in ("train", "validation")]
    for file in files:
        write_rows(rows(file.stem), file)
    record.write(*files)
    texts = [f"{build_prompt(row, [])} {row.answers[0]}" for row in rows("train")]
    tokenizer = train_tokenizer(TokenizerSpec(algorithm="unigram", vocabulary=400), texts)
    tokenizer.model_max_length = 200
    model = build_model(request.param, "tiny", Vocabulary.of(tokenizer), context=200, seed=0)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    answer(folder)
    return folder


def answer(folder: Path, name: str = "answers.parquet", **change: object) -> list[Answer]:
    spec = AnswerSpec(
        dataset="d", seed=0, **({"shots": 1, "generation": Generation(max_new_tokens=6)} | change)
    )
    write_answers(spec, folder / "model", folder / "data", folder / name)
    return read_answers(folder / name)
