"""The workflow's form: it lints, every table plans, and refusals come before any job."""

import pytest

from kd.experiment.expansion import table_runs
from kd.experiment.loading import find_experiment, load_experiment
from tests.workflow.conftest import job_counts

# One worker: the finished checkout is made once.
pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("own-checkouts")]


def test_lint_and_format(checkout):
    lint = checkout.run("snakemake", "--lint")
    assert lint.returncode == 0, lint.stdout
    form = checkout.run("snakefmt", "--check", "--diff", "Snakefile", "rules")
    assert form.returncode == 0, form.stdout


@pytest.mark.parametrize("name", ["smoke", "micro"])
def test_a_dry_run_plans_every_run_of_every_table(checkout, name):
    experiment = load_experiment(find_experiment(name))
    for table in experiment.tables:
        target = f"results/{table}.csv"
        done = checkout.snakemake(
            target, "-n", "--quiet", "rules", "--config", f"experiment={name}"
        )
        assert done.returncode == 0, done.stdout
        assert job_counts(done.stdout)["distill"] == len(table_runs(experiment, table))


def test_each_variant_of_the_logits_that_a_method_reads_is_extracted_once(checkout):
    """Two methods share the default one, one has its own, and nobody reads the third."""
    file = checkout.path / "experiments" / "variants.yaml"
    file.write_text(
        "extends: smoke.yaml\nname: variants\n"
        "logits: {default: {}, sorted: {ids: false}, unread: {cap: 5}}\n"
        "methods: {more: {loss: uld, weight: 0.5}, own: {loss: uld, logits: sorted}}\n"
    )
    target = "results/variants/tables/table2.csv"
    done = checkout.snakemake(target, "-n", "-p", "--config", "experiment=variants")
    file.unlink()
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("kd extract ") == 2
    teacher = "results/variants/teachers/llama/squad"
    assert f"--out {teacher}/logits " in done.stdout
    assert f"--out {teacher}/sorted/logits " in done.stdout
    assert done.stdout.count(f"--logits {teacher}/sorted/logits") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["results/tabel2.csv"], "Did you mean 'table2'?"),
        (["--config", "experiment=mirco"], "Did you mean 'micro'?"),
        (["--config", "seedz=3"], "'seedz' is not a known key. Did you mean 'seed'?"),
    ],
)
def test_bad_input_is_refused_in_one_last_sentence(checkout, arguments, sentence):
    done = checkout.snakemake("-n", *arguments)
    assert done.returncode != 0
    assert sentence in done.stdout.strip().splitlines()[-1]


def test_fewer_gpus_than_a_training_has_processes_are_refused(checkout):
    """Snakemake itself would cut what the job asks for, without a word."""
    file = checkout.path / "experiments/pairs.yaml"
    declared = "extends: paper.yaml\nname: pairs\ndevice: cuda\ntraining: {processes: 2}\n"
    file.write_text(declared, encoding="utf-8")
    arguments = ["-n", "-p", "results/pairs/tables/table2.csv", "--config", "experiment=pairs"]
    few = checkout.snakemake(*arguments, "--resources", "gpu=1")
    enough = checkout.snakemake(*arguments, "--resources", "gpu=2")
    file.unlink()
    last = few.stdout.strip().splitlines()[-1]
    assert few.returncode != 0
    assert "'training.processes' is 2, but a job may have 1 GPU(s)." in last
    assert enough.returncode == 0, enough.stdout
    scored = enough.stdout.split("kd score ")[1:]
    assert scored, "BERTScore's encoder runs on a GPU of its own, too"
    assert all("--gpus 1 >" in command.split("\n", 1)[0] for command in scored)


def test_planning_does_not_import_torch(checkout):
    done = checkout.run(
        "python",
        "-X",
        "importtime",
        "-m",
        "snakemake",
        "-n",
        "--quiet",
        "all",
        "--cores",
        "2",
    )
    assert done.returncode == 0, done.stdout[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stdout.splitlines()}
    assert "kd.experiment.schema" in imported
    assert not imported & {"torch", "transformers", "mlflow", "datasets"}


def test_help_does_not_import_torch(checkout):
    for command in (["kd", "--help"], ["kd", "distill", "--help"], ["kd", "losses"]):
        code = (
            f"import sys; sys.argv = {command!r}; from kd.cli import app\n"
            "try: app()\n"
            "except SystemExit: pass\n"
            "assert not {'torch', 'transformers', 'mlflow'} & set(sys.modules)"
        )
        done = checkout.run("python", "-c", code)
        assert done.returncode == 0, done.stdout
