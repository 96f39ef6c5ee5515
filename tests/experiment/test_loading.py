"""Experiment files: `extends`, overrides, and refusals that say what, where and how to mend."""

import re
from pathlib import Path

import pytest

from kd.errors import ExperimentError
from kd.experiment import loading
from kd.experiment.layout import Run
from kd.experiment.loading import experiment_files, load_experiment, merge
from kd.experiment.stages import distill_spec, extract_spec


def refusal(path, overrides=None) -> str:
    with pytest.raises(ExperimentError) as caught:
        load_experiment(path, overrides)
    return str(caught.value)


def test_every_shipped_experiment_is_valid():
    names = [load_experiment(path).name for path in experiment_files()]
    assert {"smoke", "micro", "sample", "paper"} <= set(names)


def test_extends_overrides_by_key_and_null_removes(content, write):
    write(content | {"name": "base"}, "base")
    child = {
        "extends": "base.yaml",
        "name": "child",
        "methods": {"uld": {"weight": 3.0}, "extra": {"loss": "none"}},
        "students": {"opt": None, "pythia": content["students"]["opt"]},
    }
    experiment = load_experiment(write(child, "child"))
    assert experiment.methods["uld"].weight == 3.0
    assert experiment.methods["uld"].loss == "uld"
    assert list(experiment.methods) == ["teacher_text", "uld", "extra"]
    assert list(experiment.students) == ["pythia"]


def test_a_block_with_another_source_replaces_the_inherited_one():
    base = {"squad": {"source": "micro", "task": "qa", "splits": {"train": 1}}}
    other = {"squad": {"source": "files", "task": "qa"}}
    assert merge(base, other)["squad"] == {"source": "files", "task": "qa"}


def test_circular_extends_is_refused(content, write):
    write({"extends": "b.yaml"}, "a")
    path = write({"extends": "a.yaml"}, "b")
    assert "circle" in refusal(path)


def test_seeds_may_be_a_number(content, write):
    assert load_experiment(write(content), {"seeds": 3}).seeds == [0, 1, 2]


def test_key_order_and_number_spelling_do_not_change_a_specification(content, write):
    from kd.experiment.expansion import all_runs
    from kd.experiment.stages import distill_spec, table_spec
    from kd.provenance.canonical import canonical_json

    first = load_experiment(write(content))
    content["methods"] = {
        "teacher_text": {"loss": "none"},
        "uld": {"weight": 1.5, "temperature": 1.0, "loss": "uld"},
    }
    content["training"]["weight_decay"] = 0.1
    second = load_experiment(write(content))
    for run in all_runs(first):
        one, two = distill_spec(first, run), distill_spec(second, run)
        assert canonical_json(one.model_dump(mode="json")) == canonical_json(
            two.model_dump(mode="json")
        )
    assert table_spec(first, "table2") == table_spec(second, "table2")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda c: c["methods"]["uld"].update(wieght=2.0),
            r"tiny\.yaml: 'methods\.uld\.wieght' is not a known key\. Did you mean 'weight'\?",
        ),
        (
            lambda c: c["datasets"]["squad"].update(metrik="f1"),
            r"'datasets\.squad\.metrik' is not a known key\. Did you mean 'metric'\?",
        ),
        (
            lambda c: c["students"]["opt"]["tokenizer"].update(vocabulery=4),
            r"'students\.opt\.tokenizer\.vocabulery' is not a known key\. .*mean 'vocabulary'",
        ),
        (
            lambda c: c["training"].update(epochs="five"),
            r"'training\.epochs': Input should be a valid integer \(given: 'five'\)",
        ),
        (
            lambda c: c["training"].pop("learning_rate"),
            r"'training\.learning_rate' is missing",
        ),
        (
            lambda c: c["methods"]["uld"].update(loss="udl"),
            r"'methods\.uld\.loss' names 'udl', which is no loss\. Did you mean 'uld'\?",
        ),
        (
            lambda c: c["tables"]["table2"].update(teachers=["lama"]),
            r"'tables\.table2\.teachers' names 'lama', which is not defined\. Did you mean 'llama'",
        ),
        (
            lambda c: c["tables"]["table2"].update(students=["opd"]),
            r"'tables\.table2\.students' names 'opd'.*Did you mean 'opt'",
        ),
        (
            lambda c: c["tables"]["table2"].update(datasets=["sqad"]),
            r"'tables\.table2\.datasets' names 'sqad'.*Did you mean 'squad'",
        ),
        (
            lambda c: c["tables"]["table2"].update(methods=["teacher_text", "ulb"]),
            r"'tables\.table2\.methods' names 'ulb'.*Did you mean 'uld'",
        ),
        (
            lambda c: c["datasets"]["squad"].update(metric="f2"),
            r"'datasets\.squad\.metric' is 'f2'\. Did you mean 'f1'\?",
        ),
        (
            lambda c: c["training"].update(learning_rate="1e-3"),
            r"'training\.learning_rate': YAML reads 1e-3 as text\. Write it with a dot",
        ),
        (
            lambda c: c["training"].update(learning_rate=float("inf")),
            r"'training\.learning_rate': Input should be a finite number",
        ),
        (
            lambda c: c["methods"].update(native={"loss": "none"}),
            r"'methods': 'native' is the name of another column",
        ),
        (
            lambda c: c["methods"].update(kl={"loss": "forward_kl"}),
            r"pairs teacher 'llama' with student 'opt' under 'kl', but 'forward_kl' needs one "
            r"shared tokenizer\. Losses that work across tokenizers: .*uld",
        ),
        (
            lambda c: c["students"].update({"../x": c["students"]["opt"]}),
            r"'\.\./x' is no valid name",
        ),
        (
            lambda c: c["methods"]["uld"].update(options={"costt": 1}),
            r"'methods\.uld\.options': loss 'uld' has no option 'costt'",
        ),
    ],
)
def test_bad_input_is_one_sentence_with_file_key_and_remedy(content, write, spoil, message):
    spoil(content)
    text = refusal(write(content))
    assert re.search(message, text), text
    assert all(line.startswith("tiny.yaml: ") for line in text.splitlines())


def test_all_findings_come_at_once(content, write):
    content["methods"]["uld"]["wieght"] = 1
    content["training"]["epochs"] = 0
    assert len(refusal(write(content)).splitlines()) == 2


def test_a_missing_file_suggests_the_nearest(content, write):
    path = write(content)
    assert "Did you mean 'tiny'" in refusal(path.with_name("tinny.yaml"))


def test_same_vocabulary_losses_are_allowed_between_equal_tokenizers(content, write):
    content["students"]["opt"]["tokenizer"] = content["teachers"]["llama"]["tokenizer"]
    content["methods"]["kl"] = {"loss": "forward_kl"}
    assert "kl" in load_experiment(write(content)).methods


def test_yaml_cannot_construct_objects(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    assert "not valid YAML" in refusal(path)


def test_a_key_that_stands_twice_is_refused(content, write):
    path = write(content)
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "seed: 1\nseed: 2\n", encoding="utf-8")
    assert re.search(r"the key 'seed' stands twice .*line \d+", refusal(path))


def test_a_block_that_is_merged_may_be_overridden(content, write):
    path = write(content | {"methods": {}})
    text = path.read_text(encoding="utf-8").replace("methods: {}\n", "")
    methods = "methods:\n  a: &a {loss: none}\n  b: {<<: *a, loss: uld}\n"
    path.write_text(text + methods + "tables: {}\n", encoding="utf-8")
    assert "stands twice" in refusal(path)  # tables
    path.write_text(text + methods, encoding="utf-8")
    assert "stands twice" not in refusal(path)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"loss": "none", "ce_weight": 0.0}, "nothing to learn from"),
        ({"loss": "none", "temperature": 4.0}, "'methods.extra.temperature' is set"),
        ({"loss": "none", "options": {"bogus": 3}}, "'methods.extra.options' is set"),
        ({"loss": "none", "responses": {"policy": "mixed"}}, "'methods.extra.responses' is set"),
        ({"loss": "cross_entropy", "responses": {"policy": "both"}}, "does not ask the teacher"),
        ({"loss": "cald"}, "Set 'responses: {policy: both}'"),
        ({"loss": "uld", "alignment": "chunks"}, "but under: truncate, spans"),
        ({"loss": "skew_kl", "options": {"skew": 1.5}}, "must lie in (0, 1)"),
        ({"loss": "uld", "temperature": 2.0}, "stored logits are truncated"),
        ({"loss": "uld", "teacher_temperature": 2.0}, "stored logits are truncated"),
    ],
)
def test_a_method_that_would_not_do_what_it_says_is_refused(content, write, method, said):
    content["methods"]["extra"] = method
    assert said in refusal(write(content))


@pytest.mark.parametrize(
    ("logits", "method", "said"),
    [
        ({"precision": "compact", "epsilon": 0.0}, {}, "needs an 'epsilon' above 0"),
        ({"sampling": {"draws": 9}, "cap": 5}, {}, "mean nothing beside it"),
        ({"temperatures": [1.0]}, {}, "must be distinct, and others than 1"),
        ({"ids": False}, {"loss": "forward_kl"}, "reads token ids for 'forward_kl'"),
        ({"sampling": {}}, {"loss": "uld"}, "would be biased: 'uld' is not linear"),
        ({"a": {}, "b": {}}, {"loss": "uld"}, "'methods.extra.logits' names 'default'"),
        ({"a": {}, "b": {}}, {"loss": "uld", "logits": "c"}, "names 'c'"),
        ({"eval": {}}, {}, "'eval' is the name of another folder"),
    ],
)
def test_logits_that_do_not_serve_are_refused(content, write, logits, method, said):
    content["methods"] = {"extra": {"loss": "none"} | method}
    content["logits"] = logits
    assert said in refusal(write(content))


def test_variants_of_the_logits_are_chosen_by_methods(content, write):
    content["logits"] = {"sharp": {"epsilon": 1e-3}, "flat": {"epsilon": 0.0, "ids": False}}
    content["methods"] = {
        "one": {"loss": "forward_kl", "logits": "sharp"},
        "two": {"loss": "uld", "temperature": 2.0, "logits": "flat"},
        "teacher_text": {"loss": "none"},
    }
    content["students"]["opt"]["tokenizer"] = content["teachers"]["llama"]["tokenizer"]
    experiment = load_experiment(write(content))
    assert extract_spec(experiment, "sharp").logits.epsilon == 1e-3
    specs = {
        name: distill_spec(experiment, Run("squad", "llama", "opt", name, 100, 0))
        for name in experiment.methods
    }
    read = {name: spec.method.logits for name, spec in specs.items()}
    assert read == {"one": "sharp", "two": "flat", "teacher_text": None}
    with pytest.raises(ExperimentError, match=r"no logits 'shrap'.*sharp"):
        extract_spec(experiment, "shrap")


def test_the_only_logits_serve_all_methods_and_bare_options_are_the_default(content, write):
    content["logits"] = {"sharp": {"epsilon": 1e-3}}
    run = Run("squad", "llama", "opt", "uld", 100, 0)
    assert distill_spec(load_experiment(write(content)), run).method.logits == "sharp"
    content["logits"] = {"epsilon": 1e-3, "cap": 7}
    experiment = load_experiment(write(content))
    assert distill_spec(experiment, run).method.logits is None
    assert extract_spec(experiment).logits.cap == 7


@pytest.mark.parametrize(
    ("method", "logits", "said"),
    [
        ({"loss": "jensen_shannon", "options": {"teacher_weight": 0.0}}, {}, "nothing bounds"),
        ({"loss": "reverse_kl"}, {}, "nothing bounds the error of 'reverse_kl'"),
        ({"loss": "renormalised_kl"}, {}, "nothing bounds the error of 'renormalised_kl'"),
        ({"loss": "forward_kl"}, {"sampling": {}}, "has a variance and no bound"),
        ({"loss": "ot_uniform", "options": {"solver": "sinkhorn"}}, {}, "nothing bounds"),
        ({"loss": "ot_uniform"}, {}, ""),
        (
            {"loss": "chunk_likelihood", "temperature": 2.0},
            {"temperatures": [2.0]},
            "nothing bounds the error of 'chunk_likelihood'",
        ),
        ({"loss": "reverse_kl"}, {"epsilon": 0.0}, ""),
        ({"loss": "forward_kl"}, {}, ""),
        ({"loss": "uld"}, {}, ""),
    ],
)
def test_losses_without_a_bound_are_refused_under_a_limit(content, write, method, logits, said):
    content["students"]["opt"]["tokenizer"] = content["teachers"]["llama"]["tokenizer"]
    content["methods"] = {"teacher_text": {"loss": "none"}, "extra": method}
    content["logits"] = logits
    load_experiment(write(content))
    content["max_logit_error"] = 0.01
    path = write(content)
    if said:
        assert said in refusal(path)
    else:
        load_experiment(path)


def test_variants_that_need_whole_distributions_are_refused_on_truncated_ones(content, write):
    method = {"loss": "multi_level_ot", "options": {"variant": "head"}}
    content["methods"]["extra"] = method
    message = refusal(write(content))
    assert "whole distributions" in message and "uld" in message
    content["logits"] = {"epsilon": 0.0}
    load_experiment(write(content))


def test_extends_takes_several_files_later_ones_over_earlier(content, write):
    write(content, "base")
    write({"methods": {"uld": {"weight": 2.0}}, "tables": {"other": {}}}, "more")
    child = {"extends": ["base.yaml", "more.yaml"], "name": "child", "tables": {"table2": None}}
    experiment = load_experiment(write(child, "child"))
    assert experiment.methods["uld"].weight == 2.0
    assert list(experiment.tables) == ["other"]
    with pytest.raises(ExperimentError, match="list of them"):
        load_experiment(write(child | {"extends": ["base.yaml", 3]}, "child"))


def test_metrics_and_test_datasets_of_a_table_have_to_exist(content, write):
    content["tables"]["table2"] |= {"metrics": ["ece"], "tests": ["squat"]}
    with pytest.raises(ExperimentError) as refused:
        load_experiment(write(content))
    assert "'tables.table2.metrics' names 'ece'" in str(refused.value)
    assert "'tables.table2.tests' names 'squat'" in str(refused.value)


def test_a_claim_is_about_one_metric(content, write):
    content["tables"]["table2"]["metrics"] = ["f1", "exact_match"]
    claim = {
        "text": "Better.",
        "table": "table2",
        "left": {"method": "uld"},
        "right": {"method": "teacher_text"},
    }
    content["claims"] = {"better": claim}
    with pytest.raises(ExperimentError, match="several metrics"):
        load_experiment(write(content))
    content["claims"]["better"] = claim | {"where": {"metric": "f1"}}
    assert load_experiment(write(content)).claims


@pytest.mark.parametrize("given", ["mine", "experiments/mine.yaml", "results/mine"])
def test_an_experiment_is_named_by_itself_its_file_or_its_results(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "mine").mkdir(parents=True)
    monkeypatch.setattr(loading, "EXPERIMENTS", Path("experiments"))
    assert loading.find_experiment(given) == Path("experiments/mine.yaml")
