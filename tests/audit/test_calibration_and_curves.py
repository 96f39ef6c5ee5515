"""Tables of calibration errors and of training curves: what they show is made again, too."""

import csv
import json
from pathlib import Path

import pytest

from kd.audit.notes import INTEGRITY
from kd.provenance.canonical import file_digest
from tests.audit.fabrication import EXPERIMENT, Plan, World, fabricate, remake_table
from tests.audit.mutations import audit
from tests.audit.small_files import DATASET
from tests.audit.tampering import EVAL, RUN, Tamper, edit_manifest, forge, replace_text
from tests.audit.test_clean import problems

SCORES = ["f1", "exact_match", "confidence", "brier", "ece"]
CURVES = ["lowest_validation_ce", "last_validation_ce", "validation_rise", "generalisation_gap"]
METRICS = [*SCORES, *CURVES]
PLAN = Plan(
    experiment={
        "evaluation": {"metrics": SCORES},
        "claims": {
            "uld_beats_text": EXPERIMENT["claims"]["uld_beats_text"] | {"where": {"metric": "ece"}}
        },
        "tables": {"table2": {"title": "Calibration and curves", "metrics": METRICS}},
    }
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished table with a line a metric. Read only."""
    return fabricate(tmp_path_factory.mktemp("measured") / "clean", PLAN)


@pytest.fixture
def world(measured: World, tmp_path: Path) -> World:
    return measured.copy(tmp_path / "world")


def failures(world: World) -> list[tuple[str, str]]:
    """Check and rule of each failure that follows from no other one."""
    found = [one for one in audit(world).findings if one.status == "fail" and not one.derived_from]
    return [(one.check, one.rule) for one in found]


def vouch(manifest: str, file: str) -> Tamper:
    """Write the digest of a changed file into its manifest, and give that a new identity."""

    def tamper(world: World) -> None:
        digest = file_digest(world.results / file)
        name = file.rpartition("/")[2]
        change = edit_manifest(
            manifest, lambda m: m["hashed"]["outputs"].update({name: digest}), rehash=True
        )
        change(world)

    return tamper


def edit_scores(world: World, metric: str, value: float) -> None:
    """Another mean of a metric in a run's scores, and a manifest that vouches for it."""
    file = world.results / EVAL / "scores.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["metrics"][metric]["mean"] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    vouch(f"{EVAL}/score", f"{EVAL}/scores.json")(world)


def test_a_clean_table_of_them_gives_no_failure_and_no_warning(measured: World) -> None:
    # Calibration errors of a dozen answers turn from seed to seed.
    assert [one for one in problems(audit(measured)) if not one.startswith("G statistics")] == []
    with measured.table.open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert list(rows) == METRICS
    assert all(row["uld"] for row in rows.values())
    assert all(rows[metric]["gain_uld_lo"] for metric in ("ece", "last_validation_ce"))


@pytest.mark.parametrize(
    ("metric", "column"),
    [
        *((metric, "uld") for metric in ("brier", "ece", *CURVES)),
        ("ece", "gain_uld_hi"),
        ("validation_rise", "gain_uld_p_holm"),
    ],
)
def test_a_forged_cell_is_not_what_its_scores_or_its_curve_give(
    world: World, metric: str, column: str
) -> None:
    with world.table.open() as file:
        lines = list(csv.DictReader(file))
    (line,) = [one for one in lines if one["metric"] == metric]
    old = ",".join(line.values())
    new = ",".join((line | {column: "0.123"}).values())
    forge("csv", lambda text: text.replace(old, new))(world)
    assert failures(world)[0] == (INTEGRITY, "table made again")


@pytest.mark.parametrize("metric", SCORES)
def test_edited_scores_are_not_what_the_predictions_give(world: World, metric: str) -> None:
    edit_scores(world, metric, 12.0)
    remake_table(world)
    assert (INTEGRITY, "recomputed") in failures(world)


@pytest.mark.parametrize("key", ["cross_entropy", "validation_cross_entropy"])
def test_an_edited_curve_is_seen_by_its_digest(world: World, key: str) -> None:
    replace_text(f"results/tiny/{RUN}/train.jsonl", f'"{key}": ', f'"{key}": 1')(world)
    assert failures(world) == [(INTEGRITY, "outputs")]


def test_an_edited_curve_that_its_manifest_vouches_for_is_not_what_the_predictions_hold(
    world: World,
) -> None:
    replace_text(
        f"results/tiny/{RUN}/train.jsonl",
        '"validation_cross_entropy": ',
        '"validation_cross_entropy": 1',
    )(world)
    vouch(f"{RUN}/distill", f"{RUN}/train.jsonl")(world)
    remake_table(world)
    assert failures(world) == [(INTEGRITY, "inputs")]


def test_cells_name_the_files_that_they_rest_on(measured: World) -> None:
    cells = [cell for cell in audit(measured).cells if cell["column"] == "uld"]
    by_metric = {cell["axes"]["metric"]: cell for cell in cells}
    assert set(by_metric) == set(METRICS)
    for metric, cell in by_metric.items():
        stage = "distill" if metric in CURVES else f"eval/{DATASET}/score"
        assert len(cell["scores"]) == 3
        assert all(key.endswith(stage) for key in cell["scores"]), (metric, cell["scores"])
