"""Faults that a tree was made with: every manifest is consistent, the work itself is not sound."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.audit.fabrication import Plan
from tests.audit.small_files import DATASET, weights_of
from tests.audit.tampering import RUN


def leak(splits: dict[str, Any]) -> dict[str, Any]:
    """Three test rows are training rows under other ids."""
    test = [
        row.model_copy(update={"id": f"{row.id}-again"}) if number < 3 else old
        for number, (row, old) in enumerate(zip(splits["train"], splits["test"], strict=False))
    ]
    return splits | {"test": test}


def validate_on_test(splits: dict[str, Any]) -> dict[str, Any]:
    """The validation rows are test rows under other ids."""
    rows = [row.model_copy(update={"id": f"v-{row.id}"}) for row in splits["test"][:8]]
    return splits | {"validation": rows}


def silent(texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A teacher that answers nothing to three rows of four."""
    return [text | {"answer": "" if n % 4 else text["answer"]} for n, text in enumerate(texts)]


def of_one_run(change: Callable[[Any], Any]) -> Plan:
    """Change the predictions of one run."""

    def predictions(subject: str, made: list[Any]) -> list[Any]:
        return change(made) if subject == RUN else made

    return Plan(predictions=predictions)


def flattered(made: list[Any]) -> list[Any]:
    return [row.model_copy(update={"prediction": row.references[0]}) for row in made]


def with_own_references(made: list[Any]) -> list[Any]:
    return [row.model_copy(update={"references": [row.prediction]}) for row in made]


def with_other_prompts(made: list[Any]) -> list[Any]:
    return [row.model_copy(update={"prompt_sha256": "0" * 64}) for row in made]


def blank(made: list[Any]) -> list[Any]:
    return [row.model_copy(update={"prediction": ""}) for row in made]


def of_seed_zero(run: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """The seed is not used: every seed gives the weights of seed 0."""
    return weights_of(replace(run, seed=0).path)


def of_any_method(run: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """The loss is not used: every method gives the weights of teacher text."""
    return weights_of(replace(run, method="teacher_text").path)


def untrained(run: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    return weights_of("pretrained opt") if run.path == RUN else tensors


def not_a_number(run: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    if run.path != RUN:
        return tensors
    spoilt = tensors["layer.weight"].copy()
    spoilt[3, 2] = np.nan
    return {"layer.weight": spoilt}


def nan_curve(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r | {"loss": float("nan")} if r["step"] == 4 and "loss" in r else r for r in records]


def better_before(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The least validation loss is at step 3, the student was taken from step 6."""
    return [
        r | {"validation_loss": 0.1} if r["step"] == 3 and "loss" not in r else r for r in records
    ]


def rising(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r | {"validation_loss": 2.0} if "validation_loss" in r else r for r in records]


def short_curve(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r for r in records if not ("loss" in r and r["step"] == 5)]


def other_way(values: dict[str, float]) -> dict[str, float]:
    """The published order of methods is the reverse of ours."""
    return values | {"teacher_text": values["uld"] + 20, "uld": values["teacher_text"] - 40}


def from_hub(revision: str) -> Plan:
    """The rows come from the hub, at `revision`."""
    dataset = {
        "source": "hub",
        "repo": "someone/squad",
        "revision": revision,
        "task": "qa",
        "metric": "f1",
        "hub_splits": {split: split for split in ("train", "validation", "test")},
    }
    return Plan(experiment={"datasets": {DATASET: dataset}})
