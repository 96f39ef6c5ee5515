"""Predictions survive their file, byte for byte, and a damaged file is refused."""

import hashlib

import pyarrow.parquet as pq
import pytest

from kd.data.rows import Row
from kd.errors import ArtifactError
from kd.evaluation.generation import Generated
from kd.evaluation.predict import predictions_of
from kd.evaluation.predictions import read_predictions, write_predictions

ROWS = [
    Row(id="q1", task="qa", context="c", question="?", answers=["Ünd", "two"]),
    Row(id="q2", task="qa", context="c", question="?", answers=["three"]),
]
GENERATED = [Generated("Ünd", [5, 6, 7], "newline", 0.25), Generated("", [1], "eos", 1.0)]


def test_a_row_its_prompt_and_its_answer_become_a_prediction():
    """References are the row's answers, tokens those generated."""
    first, second = predictions_of(ROWS, ["one", "two"], GENERATED)
    assert (first.id, first.prediction, first.references) == ("q1", "Ünd", ["Ünd", "two"])
    assert (first.tokens, second.tokens) == (3, 1)
    assert (first.confidence, second.confidence) == (0.25, 1.0)
    assert second.prompt_sha256 == hashlib.sha256(b"two").hexdigest()


def test_written_twice_the_bytes_are_equal_and_read_back(tmp_path):
    """No time and no path enters the file."""
    predictions = predictions_of(ROWS, ["one", "two"], GENERATED)
    one, other = tmp_path / "one.parquet", tmp_path / "deeper" / "other.parquet"
    write_predictions(predictions, one)
    write_predictions(predictions, other)
    assert one.read_bytes() == other.read_bytes()
    assert read_predictions(one) == predictions


def test_damaged_files_are_refused_with_file_row_and_remedy(tmp_path):
    """Missing, no parquet, and a finish reason that does not exist."""
    path = tmp_path / "predictions.parquet"
    with pytest.raises(ArtifactError, match=r"no such file.*kd predict"):
        read_predictions(path)
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="not a parquet file"):
        read_predictions(path)
    write_predictions(predictions_of(ROWS, ["one", "two"], GENERATED), path)
    table = pq.read_table(path)
    reasons = table.column_names.index("finish_reason")
    pq.write_table(table.set_column(reasons, "finish_reason", [["eos", "bored"]]), path)
    with pytest.raises(ArtifactError, match=r"predictions.parquet, row 2: 'finish_reason'"):
        read_predictions(path)
