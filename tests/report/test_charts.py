"""Charts: what they show, in which look, and the same bytes every time."""

import json
import re

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_hex

from kd.errors import ArtifactError
from kd.experiment.stages import ChartSpec
from kd.provenance.manifest import read_manifest
from kd.report.chart import write_charts
from kd.report.charts.gains import MOST_LABELS, draw_gains
from kd.report.charts.reliability import Answers, confident_evaluations, draw_reliability
from kd.report.charts.sizes import draw_sizes
from kd.report.charts.style import _COLOURS, looks
from kd.report.charts.training import MOST_RUNS, chosen_runs, draw_training
from kd.report.content import read_table
from tests.audit.fabrication import run_of
from tests.audit.small_files import DATASET
from tests.report.conftest import content, gain, rewrite_table, row, table

SPEC = ChartSpec(table="table2")


def draw(world):
    write_charts(SPEC, world.results, world.table.parent)
    return {
        path.relative_to(world.table.parent).as_posix(): path.read_bytes()
        for path in world.table.parent.rglob("*.*g")
    }


def sizes():
    return [
        row(
            {"teacher_score": 95.0, "native": 5.0, "teacher_text": 40.0 + f / 10, "uld": 50.0},
            {"gain_uld": gain(10 - f / 10)},
            fraction=f,
        )
        for f in (25, 50, 100)
    ]


def test_charts_are_written_with_their_manifest(world):
    files = draw(world)
    assert set(files) == {"table2.svg", "table2.png"} | {
        f"table2.charts/{name}.{suffix}"
        for name in ("gains", "reliability", "training")
        for suffix in ("svg", "png")
    }
    assert files["table2.svg"] == files["table2.charts/gains.svg"]
    manifest = read_manifest(world.table.with_suffix(".chart.manifest.json"))
    assert set(manifest["hashed"]["outputs"]) == {"table2.charts", "table2.svg", "table2.png"}
    read = set(manifest["hashed"]["inputs"])
    runs = [run_of(method, seed).path for method in ("teacher_text", "uld") for seed in range(3)]
    evaluations = [f"{subject}/eval/{DATASET}" for subject in (*runs, f"teachers/llama/{DATASET}")]
    assert read == {
        "tables/table2.json",
        *(f"{run}/train.jsonl" for run in runs),
        *(f"{folder}/predictions.parquet" for folder in evaluations),
        *(f"{folder}/scores.json" for folder in evaluations),
    }


def test_the_same_table_gives_the_same_bytes_whatever_the_users_settings(world):
    first = draw(world)
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": True}):
        assert draw(world) == first


def test_no_date_and_no_path_is_in_a_chart(world):
    for name, found in draw(world).items():
        assert str(world.root).encode() not in found, name
        assert b"<dc:date>" not in found and b"matplotlib.org" not in found, name


def test_only_colours_that_everybody_tells_apart(world):
    grey = re.compile(r"#([0-9a-f]{2})\1\1")
    for name, found in draw(world).items():
        if name.endswith(".svg"):
            used = set(re.findall(r"#[0-9a-f]{6}\b", found.decode()))
            assert {colour for colour in used if not grey.fullmatch(colour)} <= set(_COLOURS), name


def test_methods_differ_by_more_than_colour():
    found = list(looks([f"m{number}" for number in range(14)]).values())
    assert len({(look.colour, look.marker) for look in found}) == 14
    for group in (found[:7], found[7:]):
        assert len({look.marker for look in group}) == len({look.dashes for look in group}) == 7


def test_a_changed_table_is_refused(world):
    file = world.table.with_suffix(".json")
    file.write_text(file.read_text().replace("25.0", "52.0"))
    with pytest.raises(ArtifactError, match="changed since stage 'table' wrote it"):
        draw(world)


def test_a_gain_has_its_interval_and_is_filled_where_significant():
    rows = [
        row({"uld": 1.0}, {"gain_uld": gain(2.0, 0.5, p=0.01)}, dataset="a"),
        row({"uld": 1.0}, {"gain_uld": gain(-3.0, 4.0, p=0.5)}, dataset="b"),
        row({"uld": None}, {"gain_uld": {"value": None}}, dataset="c"),
    ]
    axes = draw_gains(table(rows)).axes[0]
    points = {
        to_hex(line.get_markerfacecolor()): list(line.get_xdata())
        for line in axes.lines
        if line.get_marker() == "s"
    }
    assert points == {"#d55e00": [2.0], "#ffffff": [-3.0]}
    (spans,) = axes.collections
    assert [segment[:, 0].tolist() for segment in spans.get_segments()] == [[1.5, 2.5], [-7.0, 1.0]]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]


def test_a_table_without_gains_has_no_chart_of_them():
    assert draw_gains(table([row({"uld": None}, {"gain_uld": {"value": None}})])) is None


def test_many_lines_are_sorted_and_lose_their_names():
    rows = [
        row({"uld": 1.0}, {"gain_uld": gain(float(-n % 7))}, dataset=f"d{n}")
        for n in range(MOST_LABELS + 1)
    ]
    axes = draw_gains(table(rows)).axes[0]
    (drawn,) = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) > 2]
    assert drawn == sorted(drawn) and len(drawn) == MOST_LABELS + 1
    assert not axes.get_yticklabels()


def test_dataset_sizes_are_drawn_where_they_vary(world):
    assert draw_sizes(table(sizes()[:1])) is None
    (panel,) = draw_sizes(table(sizes())).axes
    curves = {line.get_marker(): list(line.get_ydata()) for line in panel.lines}
    assert curves["o"] == [42.5, 45.0, 50.0] and curves["s"] == [50.0] * 3
    bars = [tuple(line.get_ydata()) for line in panel.lines if list(line.get_xdata()) == [25, 25]]
    assert bars == [(49.0, 51.0)]  # the gain's interval, on the baseline's score


def test_the_first_chart_of_a_dataset_size_table_are_its_sizes(world):
    found = content(sizes())
    for line in found["rows"]:
        line["cells"] |= {name: {"value": 1.0} for name in ("teacher_text", "uld")}
    rewrite_table(world, found)
    files = draw(world)
    assert files["table2.svg"] == files["table2.charts/sizes.svg"]


def test_training_curves_are_means_over_runs(world):
    found = read_table(world.table.with_suffix(".json"))
    (panel,) = draw_training(found, chosen_runs(found), world.results).axes
    shares, values = panel.lines[1].get_data()  # validation of the baseline
    over_seeds = 2 + np.mean([0, 1, 4]) / 100  # above STEPS / step
    assert list(shares) == [47.5, 97.5]
    assert values == pytest.approx([2 + over_seeds, 1 + over_seeds])
    training = panel.lines[0].get_ydata()
    assert training[0] == pytest.approx(4.0 + np.mean([0, 1, 2]) / 100)


def test_a_missing_curve_is_named(world):
    found = read_table(world.table.with_suffix(".json"))
    (world.run() / "train.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"uld/f100/s0/train\.jsonl: no training curve"):
        draw_training(found, chosen_runs(found), world.results)


def test_of_very_many_runs_some_are_read():
    many = table([row({}, {}, dataset=f"d{n}") for n in range(900)], seeds=[0, 1, 2])
    assert MOST_RUNS / 2 < len(chosen_runs(many)) <= MOST_RUNS


def test_expected_calibration_error_by_hand():
    answers = Answers([0.95, 0.95, 0.25, 1.0], [1.0, 0.0, 0.0, 1.0])
    confidence, right, count = answers.bins()
    assert count.tolist() == [1, 3]
    assert confidence.tolist() == pytest.approx([0.25, 2.9 / 3])
    assert right.tolist() == pytest.approx([0.0, 2 / 3])
    assert answers.expected_error() == pytest.approx((0.25 + 0.9) / 4 * 100)


def with_confidence(file, values):
    answers = pq.read_table(file)
    if "confidence" in answers.column_names:
        answers = answers.drop_columns("confidence")
    if values is not None:
        answers = answers.append_column("confidence", pa.array(values, pa.float64()))
    pq.write_table(answers, file)


def test_reliability_is_drawn_where_predictions_have_confidences(world):
    found = read_table(world.table.with_suffix(".json"))
    for file in world.results.rglob("predictions.parquet"):
        with_confidence(file, None)
    assert confident_evaluations(found, world.results) == {}
    assert draw_reliability(found, {}, world.results) is None
    with_confidence(world.run() / "eval" / DATASET / "predictions.parquet", [0.35] * 11 + [None])
    evaluations = confident_evaluations(found, world.results)
    assert list(evaluations.values()) == [(DATASET, "uld")]
    (panel,) = draw_reliability(found, evaluations, world.results).axes
    assert list(panel.lines[1].get_xdata()) == pytest.approx([0.35])


def test_lines_that_differ_in_their_metric_or_test_rows_say_so():
    rows = [row({}, {"gain_uld": gain(1.0)}, metric=metric) for metric in ("f1", "exact_match")]
    labels = draw_gains(table(rows)).axes[0].get_yticklabels()
    assert [text.get_text() for text in labels] == ["f1", "exact match"]
    rows = [row({}, {"gain_uld": gain(1.0)}, test=test) for test in ("squad", "qed")]
    columns = content(rows)["columns"] | {"axes": ["dataset", "test"]}
    labels = draw_gains(table(rows, columns=columns)).axes[0].get_yticklabels()
    assert [text.get_text() for text in labels] == ["squad", "qed"]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_of_few_steps_is_drawn(world, steps):
    found = read_table(world.table.with_suffix(".json"))
    runs = chosen_runs(found)
    for run in runs:
        records = [{"step": step + 1, "cross_entropy": 3.0 - step} for step in range(steps)]
        records.append({"step": steps, "validation_cross_entropy": 2.0})
        lines = [json.dumps(record) for record in records]
        (world.results / run.path / "train.jsonl").write_text("\n".join(lines))
    figure = draw_training(found, runs, world.results)
    low, high = figure.axes[0].get_ylim()
    assert low == 0 and high >= 2.0


@pytest.mark.parametrize("text", ["[]", '{"loss": 1}', '{"step": "x", "loss": 1}', "\xff"])
def test_a_curve_of_garbage_is_named(world, text):
    found = read_table(world.table.with_suffix(".json"))
    runs = chosen_runs(found)
    (world.results / runs[0].path / "train.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match="no training curve to read"):
        draw_training(found, runs, world.results)


def test_gains_in_nats_have_a_scale_of_their_own_and_lines_say_their_direction():
    metrics = ("exact_match", "brier", "validation_rise")
    rows = [
        row({"teacher_text": 1.0, "uld": 2.0}, {"gain_uld": gain(1.0)}, metric=name)
        for name in metrics
    ]
    points, nats = draw_gains(table(rows)).axes
    assert "points (95% interval, right is better)" in points.get_xlabel()
    assert "nats a token (95% interval, right is better)" in nats.get_xlabel()
    labels = [text.get_text() for axes in (points, nats) for text in axes.get_yticklabels()]
    assert labels == ["exact match", "brier (less is better)", "validation rise (less is better)"]


def test_lines_of_one_place_need_not_be_neighbours():
    cells = ({"teacher_text": 1.0, "uld": 2.0}, {"gain_uld": gain(1.0)})
    places = [("f1", "opt"), ("f1", "bloom"), ("brier", "opt"), ("brier", "bloom")]
    rows = [row(*cells, metric=metric, student=student) for metric, student in places]
    assert table(rows).several_metrics
    assert not table(rows[:2]).several_metrics


def test_sizes_are_drawn_apart_by_test_rows_and_where_less_is_better():
    def at(fraction, **place):
        scores = {"teacher_text": 30.0, "uld": 20.0}
        return row(scores, {"gain_uld": gain(10.0, half=2.0)}, fraction=fraction, **place)

    rows = [at(f, test=test, metric="brier") for f in (50, 100) for test in ("squad", "other")]
    figure = draw_sizes(table(rows))
    assert len([panel for panel in figure.axes if panel.get_visible()]) == 2
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert any("other" in title for title in titles)
    bars = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    assert any(sorted(bar) == [18.0, 22.0] for bar in bars), "the gain is a decrease"
    (one,) = draw_sizes(table([at(f, metric="brier") for f in (50, 100)])).axes
    assert one.get_title(loc="left").endswith("squad")
