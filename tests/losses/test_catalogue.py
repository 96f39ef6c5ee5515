"""The catalogue: what is known of losses without importing torch."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from kd.errors import LossError
from kd.losses import available_losses, load_loss, loss_info
from kd.losses.catalogue import declared_losses
from kd.losses.documentation import render_losses
from kd.losses.needs import BATCH, SETUP
from kd.losses.rows import AlignedBatch
from kd.losses.setup import Setup
from tests.losses.batches import batch_for

NEW_LOSS = '''
from torch import Tensor
from kd.losses.declaration import loss

@loss("half_l1", family="total variation", same_vocabulary=True,
      truncation="lower_bound", formula="x", source="somewhere, eq. 1")
def half_l1(student: Tensor, teacher: Tensor, *, power: float = 1.0) -> Tensor:
    """Half the L1 distance.

    More.
    """
'''


def test_reading_the_catalogue_does_not_import_torch() -> None:
    code = (
        "import sys; from kd.losses import available_losses; "
        "assert 'uld' in available_losses(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loading_a_loss_imports_no_other_loss() -> None:
    code = (
        "import sys; from kd.losses import load_loss; load_loss('uld'); "
        "assert 'kd.losses.ot' in sys.modules; assert 'kd.losses.kl' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_declaration_is_read_from_source_text() -> None:
    (info,) = declared_losses(NEW_LOSS, "kd.losses.new")
    assert (info.name, info.module, info.function) == ("half_l1", "kd.losses.new", "half_l1")
    assert info.needs == ("student", "teacher") and info.options == {"power": 1.0}
    assert info.same_vocabulary and info.truncation == "lower_bound"
    assert info.summary == "Half the L1 distance."


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("power: float = 1.0", "power: float"),
        ('"somewhere, eq. 1"', "WHERE"),
        ("family=", "fam="),
        ("lower_bound", "lowerbound"),
        ("student: Tensor,", "studnt: Tensor,"),
        ("teacher: Tensor,", "teacher: Tensor, /,"),
        ('formula="x"', 'formula="x", choices={"strength": ("a",)}'),
        ('formula="x"', 'formula="x", ranges={"power": "[2, 3]"}'),
        ('formula="x"', 'formula="x", alignments="spans"'),
    ],
)
def test_an_unreadable_declaration_is_refused_by_name(before: str, after: str) -> None:
    assert before in NEW_LOSS
    with pytest.raises(LossError, match="half_l1"):
        declared_losses(NEW_LOSS.replace(before, after), "kd.losses.new")


@pytest.mark.parametrize("name", available_losses())
def test_every_loss_asks_for_existing_rows_and_tells_its_source(name: str) -> None:
    info = loss_info(name)
    assert set(info.needs) <= set(BATCH) and set(info.setup) <= set(SETUP)
    assert info.family and info.source and info.summary.endswith(".")


def test_everything_that_a_loss_may_ask_for_is_there() -> None:
    assert all(hasattr(AlignedBatch, need) for need in BATCH)
    assert {field.name for field in fields(Setup)} == set(SETUP)


@pytest.mark.parametrize("name", available_losses())
def test_the_catalogue_agrees_with_the_imported_function(name: str) -> None:
    info = loss_info(name)
    declared = getattr(importlib.import_module(info.module), info.function)
    parameters = inspect.signature(declared).parameters.values()
    keyword_only = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keyword_only == info.options


def test_an_unknown_loss_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(LossError, match="Did you mean 'forward_kl'"):
        loss_info("foward_kl")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(LossError, match="loss 'uld' has no option 'temprature'"):
        load_loss("uld", temprature=2.0)


@pytest.mark.parametrize("value", ["2", True, None])
def test_an_option_of_another_type_is_refused(value: object) -> None:
    (info,) = declared_losses(NEW_LOSS, "kd.losses.new")
    info.check_options({"power": 2})
    with pytest.raises(LossError, match="'power'"):
        info.check_options({"power": value})


CHOICES = [
    (name, option, value)
    for name, info in available_losses().items()
    for option, values in info.choices.items()
    for value in values
]


@pytest.mark.parametrize(("name", "option", "value"), CHOICES)
def test_every_choice_of_an_option_is_one_that_the_loss_knows(
    name: str, option: str, value: str
) -> None:
    batch = batch_for(name)
    assert batch.loss(name, **{option: value}).isfinite()
    with pytest.raises(LossError, match=f"option '{option}' is 'x{value}'"):
        load_loss(name, setup=batch.setup, **{option: f"x{value}"})


def test_the_names_that_other_systems_use_are_aliases() -> None:
    aliases = {"fkl": "forward_kl", "kld": "forward_kl", "multi-ot": "multi_level_ot"}
    assert all(loss_info(alias).name == name for alias, name in aliases.items())
    batch = batch_for("forward_kl")
    assert torch.equal(batch.loss("kld"), batch.loss("forward_kl"))


def test_the_page_of_losses_is_the_one_that_the_declarations_give() -> None:
    page = Path(__file__).resolve().parents[2] / "docs/losses.md"
    assert page.read_text(encoding="utf-8") == render_losses(), (
        "kd losses --markdown > docs/losses.md"
    )


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("skew_kl", "skew", 1.0),
        ("skew_kl", "skew", 0),
        ("amid", "alpha", float("nan")),
        ("amid", "alpha", float("inf")),
        ("hinge_ranking", "k", 1),
        ("hinge_ranking", "margin", "big"),
        ("gold_hybrid", "matched_weight", -1.0),
        ("hidden_state", "layers", []),
        ("hidden_state", "layers", [7.0]),
        ("hidden_state", "layers", ["a"]),
        ("ot_uniform", "support", -1),
        ("taid", "t_start", 2.0),
    ],
)
def test_a_value_outside_what_an_option_may_be_is_refused(
    name: str, option: str, value: object
) -> None:
    with pytest.raises(LossError, match=f"option '{option}' is"):
        loss_info(name).check_options({option: value})


def test_values_at_the_ends_of_an_interval_are_told_apart() -> None:
    loss_info("taid").check_options({"t_start": 0, "t_end": 1})
    loss_info("hinge_ranking").check_options({"margin": None})
    loss_info("hidden_state").check_options({"layers": [0.0, 0.5, 1.0]})


def test_a_file_that_is_no_python_is_named_with_its_line():
    with pytest.raises(LossError, match=r"kd.losses.x, line 2: not valid Python"):
        declared_losses("a = 1\ndef x(:\n", "kd.losses.x")
