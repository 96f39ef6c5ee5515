"""The lines that docs/logit-store.md gives to other code do what they say."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kd.logits import LogitReader, LogitWriter, keep_top_k
from kd.losses.teacher import TeacherLogits
from tests.logits.stores import IDS, VOCABULARY, example, write

PAGE = Path(__file__).resolve().parents[2] / "docs/logit-store.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


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


def last_line(store: str) -> str:
    """The last of the five lines, as the table has it for a store."""
    *lines, last = BLOCKS[1].splitlines()
    cells = {
        name.strip(): [cell.strip() for cell in found]
        for name, *found in re.findall(r"^\| ([^|]+)\| ([^|]+)\| ([^|]+)\|$", TEXT, re.MULTILINE)
    }[store]
    sides = re.fullmatch(r"ids, probs = (.+), (numpy\.exp.+)", last)
    assert sides is not None
    chosen = [
        side if cell == "the same" else cell.strip("`")
        for side, cell in zip(sides.groups(), cells, strict=True)
    ]
    return "\n".join([*lines, f"ids, probs = {', '.join(chosen)}"])


def test_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "logits")
    monkeypatch.chdir(tmp_path)
    found = executed(BLOCKS[1])
    exact = keep_top_k(IDS[0], **example(IDS[0]), epsilon=0.05, cap=6)
    assert exact.ids is not None
    assert np.asarray(found["ids"]).tolist() == exact.ids.tolist()
    np.testing.assert_allclose(np.asarray(found["probs"]), exact.log_probs.exp(), rtol=1e-3)


@pytest.mark.parametrize(
    ("store", "vocabulary", "settings"),
    [
        ("more than 65,536 tokens", 70_000, {"epsilon": 1e-3}),
        ("`precision: full`, `epsilon: 0`", 50, {}),
        ("`precision: full`, `epsilon: 0`", 50, {"epsilon": 1e-3, "precision": "full"}),
        ("drawn tokens (`sampling`)", 50, {"draws": 40}),
        ("`ids: false`", 50, {"epsilon": 1e-3, "ids": False}),
    ],
)
def test_without_it_from_each_kind_of_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    vocabulary: int,
    settings: dict[str, Any],
) -> None:
    logits = torch.zeros(2, vocabulary)
    logits[:, [vocabulary - 1, 3]] = torch.tensor([20.0, 19.0])
    with LogitWriter(tmp_path / "logits", vocabulary=vocabulary, **settings) as writer:
        writer.add("row", torch.tensor([5, 3]), logits, ends=torch.tensor([1, 2]))
    monkeypatch.chdir(tmp_path)
    found = executed(last_line(store))
    row = LogitReader(tmp_path / "logits")["row"]
    if settings.get("ids", True):
        assert row.ids is not None and row.ids.max() == vocabulary - 1
        assert np.asarray(found["ids"]).tolist() == row.ids.tolist()
    else:
        assert row.ids is None and found["ids"] is None
    np.testing.assert_allclose(np.asarray(found["probs"]), row.log_probs.exp(), rtol=1e-3)


def test_the_page_names_every_tensor_and_key_of_the_format(tmp_path: Path) -> None:
    reader = LogitReader(write(tmp_path / "logits", temperatures=(2.0,)))
    reader[IDS[0]]
    (arrays, *_) = reader._open.values()
    for name in {*arrays, *reader.index.model_dump(), "digest"} - {"shards"}:
        assert f"`{name}`" in TEXT, name
    for name in ("model", "token", "template", "answers", "dtype", "the shards"):
        assert name in TEXT
