"""Claims in an experiment file: what may be written, and which refusals say what to mend."""

import pytest
import yaml

from kd.errors import ExperimentError
from kd.experiment.claims import Claim, Place, claim_pairs, place_columns, trends
from kd.experiment.expansion import table_runs
from kd.experiment.loading import EXPERIMENTS, load_experiment, read_resolved
from kd.experiment.spec_files import parse_spec
from kd.experiment.stages import TableSpec, distill_spec, score_spec, table_spec
from kd.provenance.canonical import canonical_json

CLAIM = {
    "text": "ULD beats teacher text.",
    "table": "table2",
    "left": {"method": "uld"},
    "right": {"method": "teacher_text"},
}


def parsed(**keys):
    return Claim.model_validate(CLAIM | keys)


@pytest.fixture
def refusal(content, write):
    """The refusal of an experiment with one claim, made of CLAIM and the keys given."""

    def refused(**keys):
        with pytest.raises(ExperimentError) as caught:
            load_experiment(write(content | {"claims": {"c": CLAIM | keys}}))
        return str(caught.value)

    return refused


def test_a_claim_has_sensible_defaults(content, write):
    content["claims"] = {"c": CLAIM}
    claim = load_experiment(write(content)).claims["c"]
    assert (claim.relation, claim.over, claim.margin) == ("greater", "mean", 0)
    content["claims"] = {}
    assert load_experiment(write(content)).claims == {}


def test_an_axis_may_be_one_value_or_a_list():
    assert parsed(where={"dataset": "squad"}) == parsed(where={"dataset": ["squad"]})
    assert parsed(where={"fraction": 50}).where.fraction == [50]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"over": "trend"}, "go together"),
        ({"relation": "falls"}, "go together"),
        ({"over": "trend", "relation": "falls"}, "needs 'along'"),
        ({"order": ["a", "b"]}, "need 'over: trend'"),
        ({"over": "lines"}, "needs 'count'"),
        ({"count": 3}, "needs 'over: lines'"),
        ({"relation": "equivalent"}, "needs a 'margin' above 0"),
        ({"left": {"method": "uld", "fraction": 50}}, "one side selects 'fraction'"),
        ({"left": {"method": "uld", "seeds": [0]}}, "'seeds' must be given for both"),
        ({"right": {"method": "uld"}}, "both sides are the same"),
        ({"relation": "bigger"}, "'claims.c.relation' is 'bigger'"),
        ({"margins": 1.0}, "'claims.c.margins' is not a known key. Did you mean 'margin'?"),
        (
            {"where": {"datset": "squad"}},
            "tiny.yaml: 'claims.c.where.datset' is not a known key. Did you mean 'dataset'?",
        ),
        (
            {"left": {"method": "uld", "fractions": 50}},
            "tiny.yaml: 'claims.c.left.fractions' is not a known key. Did you mean 'fraction'?",
        ),
        ({"table": "table3"}, "'claims.c.table' names 'table3', which is not defined. Did you"),
        ({"metric": "bertscore"}, "'claims.c.metric' names 'bertscore', which is not defined"),
        ({"where": {"dataset": "squid"}}, "'claims.c.where.dataset' names 'squid', not in the"),
        ({"right": {"method": "kl"}}, "'claims.c.right.method' names 'kl', not in the table"),
        (
            {"metric": "exact_match", "where": {"metric": "f1"}},
            "'metric' is exact_match, but 'where.metric' says f1",
        ),
        (
            {
                "metric": "exact_match",
                "left": {"method": "uld", "metric": "exact_match"},
                "right": {"method": "uld", "metric": "f1"},
            },
            "'metric' is exact_match, but 'right.metric' says f1",
        ),
        ({"over": "lines", "count": 2}, "'claims.c.count' is 2, but the claim has 1 lines"),
        (
            {"over": "trend", "relation": "falls", "along": "student"},
            "'claims.c.along': no line has several values of 'student'",
        ),
    ],
)
def test_refusals_name_key_and_remedy(refusal, keys, message):
    assert message in refusal(**keys)


def test_axes_of_the_sides_are_not_selected_twice(refusal):
    sides = {
        "left": {"method": "uld", "fraction": 50},
        "right": {"method": "teacher_text", "fraction": 100},
    }
    assert "'fraction' is selected by the sides" in refusal(**sides, where={"fraction": 100})
    trend = {"over": "trend", "relation": "falls", "along": "fraction"}
    assert "'fraction' is selected by the sides" in refusal(**sides, **trend)
    uneven = {
        "left": {"method": "uld", "seeds": [0, 1]},
        "right": {"method": "uld", "seeds": [2]},
    }
    assert "equally many 'seeds'" in refusal(**uneven)


PLACES = [Place(d, t, "opt", f) for d in "ab" for t in ("l", "m") for f in (50, 100)]
METHODS = ["teacher_text", "uld"]
COLUMNS = place_columns(((place, None) for place in PLACES), "teacher_text", METHODS)


def test_free_axes_make_the_lines():
    assert len(claim_pairs(parsed(), COLUMNS)) == 8
    sides = {
        "left": {"method": "uld", "fraction": 50},
        "right": {"method": "teacher_text", "fraction": 100},
    }
    pairs = claim_pairs(parsed(**sides, where={"dataset": "b"}), COLUMNS)
    assert [(p.left.teacher, p.left.fraction, p.right.fraction) for p in pairs] == [
        ("l", 50, 100),
        ("m", 50, 100),
    ]


def test_lines_without_both_cells_are_left_out():
    rows = [(place, "uld" if place.dataset == "a" else "kl") for place in PLACES]
    columns = place_columns(rows, "teacher_text", METHODS)
    assert {pair.left.dataset for pair in claim_pairs(parsed(), columns)} == {"a"}
    assert columns[PLACES[0]] == ["teacher_score", "native", "teacher_text", "uld"]


def test_trends_run_along_one_axis_in_order():
    claim = parsed(over="trend", relation="rises", along="fraction", order=[100, 50])
    found = trends(claim, claim_pairs(claim, COLUMNS))
    assert len(found) == 4
    assert all([pair.level for pair in trend] == [100, 50] for trend in found)
    lacking = parsed(over="trend", relation="rises", along="fraction", order=[25, 50])
    assert trends(lacking, claim_pairs(lacking, COLUMNS)) == []


def test_the_papers_claims_fit_an_experiment_with_its_tables(content, write):
    model = content["students"]["opt"]
    small = {"pythia_160m": model, "pythia": model, "pythia_1b": model}
    names = ("squad", "qed", "fairytaleqa", "pubmedqa", "dialogsum")
    content["datasets"] = dict.fromkeys(names, content["datasets"]["squad"])
    content["teachers"] = dict.fromkeys(
        ("llama", "mistral"), content["teachers"]["llama"] | {"shots": 0}
    )
    content["students"] = dict.fromkeys(("opt", "bloom", "t5"), model) | small
    content["tables"] = {
        "table2": {"students": ["opt", "pythia", "bloom"]},
        "dataset_size": {
            "datasets": ["squad", "fairytaleqa"],
            "teachers": ["llama"],
            "students": ["pythia"],
            "fractions": [25, 50, 75, 100],
        },
        "student_size": {"teachers": ["llama"], "students": list(small)},
        "cross_architecture": {"students": ["t5"]},
    }
    claims = read_resolved(EXPERIMENTS / "claims/uld.yaml")["claims"]
    experiment = load_experiment(write(content | {"claims": claims}))
    assert set(experiment.claims) == set(claims)
    assert {claim.table for claim in experiment.claims.values()} == set(content["tables"])
    assert all(claim.source for claim in experiment.claims.values())


def test_a_file_of_claims_is_a_base_to_extend(content, write, tmp_path):
    claims = {"kept": CLAIM, "dropped": CLAIM}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"claims": claims}))
    child = content | {"extends": "claims.yaml", "claims": {"dropped": None}}
    assert list(load_experiment(write(child)).claims) == ["kept"]


def test_a_table_carries_its_own_claims_in_the_experiments_order(content, write):
    content["tables"] = {"table2": {}, "other": {}}
    content["claims"] = {"z": CLAIM, "a": CLAIM | {"margin": 1.0}, "m": CLAIM | {"table": "other"}}
    path = write(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    experiment = load_experiment(path)
    spec = table_spec(experiment, "table2")
    assert [(claim.name, claim.margin) for claim in spec.claims] == [("z", 0.0), ("a", 1.0)]
    assert [claim.name for claim in table_spec(experiment, "other").claims] == ["m"]
    again = parse_spec(TableSpec, canonical_json(spec.model_dump(mode="json")))
    assert again == spec


def test_editing_a_claim_changes_its_tables_specification_and_no_other(content, write):
    content["tables"] = {"table2": {}, "other": {}}

    def specs(claim):
        experiment = load_experiment(write(content | {"claims": {"c": claim}}))
        run = table_runs(experiment, "table2")[0]
        others = (score_spec(experiment), distill_spec(experiment, run))
        return table_spec(experiment, "table2"), (table_spec(experiment, "other"), *others)

    (own, others), (edited, same) = specs(CLAIM), specs(CLAIM | {"text": "Edited."})
    assert own != edited
    assert others == same


@pytest.mark.parametrize(
    "name", ["uld_sd", "uld_p_holm", "gain_uld", "gain_uld_lo", "published_uld", "score", "score_n"]
)
def test_a_method_cannot_bear_the_name_of_another_column(content, write, name):
    content["methods"][name] = {"loss": "none"}
    with pytest.raises(ExperimentError, match=f"'{name}' is the name of another column"):
        load_experiment(write(content))


def test_a_method_may_end_like_a_statistic(content, write):
    content["methods"]["top_p"] = content["methods"]["soft_lo"] = {"loss": "none"}
    assert "top_p" in load_experiment(write(content)).methods


def measured(content, metrics):
    content["evaluation"] = {
        "metrics": ["f1", "exact_match", "rougeLsum", "confidence", "brier", "ece"]
    }
    content["tables"] = {"table2": {"metrics": metrics}}
    return content


@pytest.mark.parametrize(
    ("metrics", "keys", "message"),
    [
        (
            ["exact_match", "brier"],
            {
                "left": {"method": "uld", "metric": "exact_match"},
                "right": {"method": "uld", "metric": "brier"},
            },
            "compares or averages exact_match and brier",
        ),
        (
            ["f1", "validation_rise"],
            {"where": {"metric": "validation_rise"}, "right": {"method": "teacher_score"}},
            "asks for validation_rise of 'teacher_score', which has no training curve",
        ),
        (
            ["ece"],
            {"left": {"method": "teacher_score"}, "right": {"method": "native"}},
            "can never be decided: 'teacher_score' and 'native' have no seeds",
        ),
    ],
)
def test_claims_that_no_scores_could_decide_are_refused(content, write, metrics, keys, message):
    content = measured(content, metrics) | {"claims": {"c": CLAIM | keys}}
    with pytest.raises(ExperimentError, match="claims") as caught:
        load_experiment(write(content))
    assert message in str(caught.value)


def test_claims_across_like_metrics_and_of_whole_values_are_accepted(content, write):
    content = measured(content, ["exact_match", "confidence", "ece"])
    sides = {
        "left": {"method": "uld", "metric": "confidence"},
        "right": {"method": "uld", "metric": "exact_match"},
    }
    whole = CLAIM | {"where": {"metric": "ece"}}
    content["claims"] = {"too_sure": CLAIM | sides, "calibrated": whole}
    assert set(load_experiment(write(content)).claims) == {"too_sure", "calibrated"}
