"""The paper's experiment and its variants: settings by dataset, and what each stage is given."""

import pytest

from kd.errors import ExperimentError
from kd.experiment import fetching, stages
from kd.experiment.expansion import table_runs
from kd.experiment.layout import Run
from kd.experiment.loading import find_experiment, load_experiment
from kd.experiment.models import PromptForm

VARIANTS = ("paper", "paper_replica0", "paper_open", "paper_modern", "paper_beyond")
ROWS_A_STEP = {"squad": 32, "qed": 16, "fairytaleqa": 16, "pubmedqa": 24, "dialogsum": 16}


def paper(name="paper", **overrides):
    return load_experiment(find_experiment(name), overrides)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_valid_and_names_no_gated_model_but_the_papers(name):
    experiment = paper(name)
    assert all(table_runs(experiment, table) for table in experiment.tables)
    gated = {"meta-llama/Llama-2-7b-chat-hf", "mistralai/Mistral-7B-Instruct-v0.2"}
    named = {model.repo for model in experiment.teachers.values()}
    assert bool(named & gated) == (name not in ("paper_open", "paper_modern"))


@pytest.mark.parametrize(("dataset", "rows"), ROWS_A_STEP.items())
def test_rows_a_step_in_both_readings(dataset, rows):
    run = Run(dataset, "llama", "opt", "uld", 100, 0)
    whole = stages.distill_spec(paper(), run).training
    part = stages.distill_spec(paper("paper_replica0"), run).training
    assert (whole.batch_size, whole.replicas) == (rows, 1)
    assert (part.batch_size, part.replicas) == (rows // 4, 4)
    changed = whole.model_copy(update={"batch_size": rows // 4, "replicas": 4})
    assert part == changed  # nothing else differs


@pytest.mark.parametrize("name", VARIANTS)
def test_teachers_of_seven_billion_weights_are_read_in_half_precision(name):
    experiment = paper(name)
    for teacher in experiment.teachers:
        load = stages.answer_spec(experiment, teacher, "squad").load
        assert load is not None and load.dtype == "bfloat16"
    for student in experiment.students:  # they learn in float32, and are tested in it
        assert stages.predict_spec(experiment, "squad", student).load is None


@pytest.mark.parametrize("name", VARIANTS)
def test_the_output_layer_is_fused_with_losses_that_allow_it(name):
    from kd.training.objective import Objective

    experiment = paper(name)
    fused = experiment.training.fused_head
    assert fused == (name not in ("paper_modern", "paper_beyond"))
    for method in experiment.methods.values() if fused else ():
        Objective(method, eos_token_id=0, shift=True, fused_head=True)


def test_each_teacher_is_asked_in_its_own_way():
    asked = stages.answer_spec(paper(), "mistral", "qed")
    assert asked.shots == 5 and asked.prompt.style == "chat" and asked.prompt.title
    assert not stages.answer_spec(paper(), "llama", "qed").prompt.title
    assert stages.answer_spec(paper(), "llama", "squad").shots == 1
    assert stages.predict_spec(paper(), "dialogsum", "opt").shots == 2


def test_a_distilled_student_is_asked_plainly():
    spec = stages.predict_spec(paper(), "squad")
    assert (spec.shots, spec.prompt) == (0, PromptForm())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training_on": {"squad": {"batchsize": 1}}}, r"'squad\.batchsize' is no key.*batch_size"),
        ({"training_on": {"squat": {"epochs": 1}}}, r"'training_on' names 'squat'.*'squad'"),
        (
            {"training_on": {"squad": {"epochs": 0}}},
            r"'training_on\.squad\.epochs': Input should be greater than 0",
        ),
        ({"teachers": {"llama": {"prompt": {"titles": ["x"]}}}}, r"prompt\.titles' names 'x'"),
        ({"teachers": {"llama": {"prompt": {"system": {"x": "y"}}}}}, r"system' names 'x'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(overrides, message):
    with pytest.raises(ExperimentError, match=message):
        paper(**overrides)


def test_only_models_of_the_hub_are_fetched():
    spec = fetching.fetch_spec(paper(), "opt")
    assert (spec.repo, spec.convert_pickle) == ("facebook/opt-350m", True)
    assert fetching.fetch_spec(paper(), fetching.ENCODER).repo == "FacebookAI/roberta-large"
    with pytest.raises(ExperimentError, match="has source 'micro', so there is nothing to fetch"):
        fetching.fetch_spec(paper("micro"), "opt")
