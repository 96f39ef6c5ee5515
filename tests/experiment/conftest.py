"""A small experiment that is valid; tests spoil one thing at a time."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

MODEL = {
    "source": "micro",
    "architecture": "llama",
    "size": "tiny",
    "tokenizer": {"algorithm": "byte_bpe", "vocabulary": 400},
    "pretraining": {"steps": 10, "rows": 20},
}
VALID: dict[str, Any] = {
    "name": "tiny",
    "datasets": {
        "squad": {
            "source": "micro",
            "task": "qa",
            "metric": "f1",
            "splits": {"train": 8, "validation": 4, "test": 4},
        }
    },
    "teachers": {"llama": MODEL | {"shots": {"squad": 1}}},
    "students": {
        "opt": MODEL | {"tokenizer": {"algorithm": "unigram", "vocabulary": 500}},
    },
    "methods": {"teacher_text": {"loss": "none"}, "uld": {"loss": "uld", "weight": 1.5}},
    "training": {"learning_rate": 0.001},
    "tables": {"table2": {}},
}


@pytest.fixture
def content() -> dict[str, Any]:
    return copy.deepcopy(VALID)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an experiment file; returns its path."""

    def write(content: dict[str, Any], name: str = "tiny") -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write
