"""The lines that docs/logit-store.md gives to other code do what they say."""

import re
from pathlib import Path

import numpy as np
import pytest

from kd.logits import LogitReader, keep_top_k
from kd.losses.teacher import TeacherLogits
from tests.logits.stores import IDS, VOCABULARY, example, write

PAGE = Path(__file__).resolve().parents[2] / "docs/logit-store.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def executed(block: str) -> dict[str, object]:
    lines = [line for line in block.splitlines() if line]
    assert len(lines) <= 5
    names: dict[str, object] = {}
    exec(block, names)
    return names


def test_with_this_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "logits")
    monkeypatch.chdir(tmp_path)
    batch = executed(BLOCKS[0])["batch"]
    assert isinstance(batch, TeacherLogits) and batch.vocabulary == VOCABULARY
    assert batch.lengths.tolist() == [len(example(row_id)["token_ids"]) for row_id in IDS[:2]]


def test_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "logits")
    monkeypatch.chdir(tmp_path)
    found = executed(BLOCKS[1])
    exact = keep_top_k(IDS[0], **example(IDS[0]), epsilon=0.05, cap=6)
    assert exact.ids is not None
    assert np.asarray(found["ids"]).tolist() == exact.ids.tolist()
    np.testing.assert_allclose(np.asarray(found["probs"]), exact.log_probs.exp(), rtol=1e-3)


def test_the_page_names_every_tensor_and_key_of_the_format(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    reader = LogitReader(write(tmp_path / "logits", temperatures=(2.0,)))
    reader[IDS[0]]
    (arrays, *_) = reader._open.values()
    for name in {*arrays, *reader.index.model_dump()} - {"shards"}:
        assert f"`{name}`" in text, name
    for name in ("model", "token", "template", "answers", "dtype", "the shards"):
        assert name in text
