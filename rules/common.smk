"""What the rules share: the experiments, and each stage's slice of them.

The only file of the workflow that holds functions; what they compute lies in the package.
"""

import atexit
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import yaml

from kd.cluster import runs, slurm
from kd.errors import KdError, nearest
from kd.experiment import expansion, fetching, loading, requirements, stages
from kd.experiment.layout import Run, logits_path
from kd.experiment.datasets import FilesDataset, HubDataset
from kd.experiment.logits import DEFAULT, variant_of
from kd.experiment.models import HubModel, LocalModel, MicroModel
from kd.gpus import visible_gpus
from kd.provenance.canonical import canonical_json
from kd.provenance.code import PACKAGE_ROOT, code_digest
from kd.provenance.manifest import path_digest
from kd.resume import finished
from kd.training.code import distillation_modules
from kd.workflow import unnoted_outputs

# Local jobs share one import of torch (`kd.worker`). KD_WORKER= switches that off.
if workflow.is_main_process and workflow.local_exec:
    os.environ.setdefault("KD_WORKER", str(os.getpid()))

NAME = "[A-Za-z0-9][A-Za-z0-9_-]*"


wildcard_constraints:
    experiment=NAME,
    dataset=NAME,
    test=NAME,
    teacher=NAME,
    student=NAME,
    model=NAME,
    method=NAME,
    variant=NAME,
    table=NAME,
    fraction=r"\d+",
    seed=r"\d+",
    subject="(runs|native|teachers)/.+",


def look_when_jobs_end():
    """Let Snakemake look at its schedule when a job has ended, and only then.

    Under its usual limit, 100 jobs a second, each look is followed by another one a second later,
    and every job that ends begins one more such chain: after some hundred jobs Snakemake does
    little else. A limit that somebody has asked for is kept.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit is not None and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def typed(value):
    """`value` of --config as a file would have it: Snakemake leaves what is inside a list text."""
    if isinstance(value, list):
        return [
            yaml.safe_load(part) if isinstance(part, str) else typed(part)
            for part in value
        ]
    if isinstance(value, dict):
        return dict(zip(value, typed(list(value.values()))))
    return value


OVERRIDES = {key: typed(value) for key, value in config.items() if key != "experiment"}


def refuse(reason):
    """Stop before any job, with the reason as the last line."""
    sys.exit(f"kd: error: {reason}")


@cache
def load(name):
    """The experiment called `name`; `--config KEY=VALUE` overrides the selected one."""
    overrides = OVERRIDES if name == config.get("experiment", "micro") else {}
    try:
        return loading.load_experiment(loading.find_experiment(str(name)), overrides)
    except KdError as error:
        refuse(error)


SELECTED = load(config.get("experiment", "micro"))


FAILED_LOG = re.compile(r"^\s*log: (.+) \(check log file", re.MULTILINE)


def read_log(path):
    file = Path(path)
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def repeat_refusals(logs):
    """Say last what `kd` refused, at exit: below all that Snakemake has to say."""
    texts = [read_log(log) for log in logs]
    named = [names for text in texts for names in FAILED_LOG.findall(text)]
    texts += [read_log(log) for names in named for log in names.split(", ")]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    refusals = dict.fromkeys(
        line for line in lines if line.startswith(("kd: error: ", "kd: interrupted: "))
    )
    atexit.register(lambda: print(*refusals, sep="\n", file=sys.stderr))


def spec_of(make, *arguments):
    """A stage's specification as canonical JSON."""
    try:
        return canonical_json(make(*arguments).model_dump(mode="json"))
    except KdError as error:
        refuse(error)


def declared(block, name, kind):
    """An entry of the experiment, or a sentence that says there is none."""
    if name not in block:
        refuse(f"{kind} '{name}' is not defined. {nearest(name, block)}")
    return block[name]


# Outputs of jobs that Snakemake did not see end stay linked, for the same job to take back.
os.environ.setdefault(finished.SWITCH, "1")


def forget_finished():
    """At the end, of what is noted: another Snakemake may have jobs that are not."""
    finished.forget(
        Path("checkpoints", SELECTED.name),
        Path("results", SELECTED.name),
        unnoted_outputs(Path()),
    )


# --- specifications, one function per stage -------------------------------------------------


def data_spec(wildcards):
    experiment = load(wildcards.experiment)
    declared(experiment.datasets, wildcards.dataset, "dataset")
    return spec_of(stages.data_spec, experiment, wildcards.dataset)


def pretrain_spec(wildcards):
    experiment = load(wildcards.experiment)
    declared(experiment.teachers | experiment.students, wildcards.model, "model")
    return spec_of(stages.pretrain_spec, experiment, wildcards.model)


def fetch_spec(wildcards):
    experiment = load(wildcards.experiment)
    if wildcards.model != fetching.ENCODER:
        declared(experiment.teachers | experiment.students, wildcards.model, "model")
    return spec_of(fetching.fetch_spec, experiment, wildcards.model)


def answer_spec(wildcards):
    experiment = load(wildcards.experiment)
    declared(experiment.teachers, wildcards.teacher, "teacher")
    return spec_of(stages.answer_spec, experiment, wildcards.teacher, wildcards.dataset)


def extract_spec(wildcards):
    variant = getattr(wildcards, "variant", DEFAULT)
    experiment = load(wildcards.experiment)
    declared(experiment.teachers, wildcards.teacher, "teacher")
    return spec_of(stages.extract_spec, experiment, variant, wildcards.teacher)


def distill_spec(wildcards):
    return spec_of(stages.distill_spec, load(wildcards.experiment), run_of(wildcards))


def student_predict_spec(wildcards):
    experiment = load(wildcards.experiment)
    declared(experiment.students, wildcards.student, "student")
    return spec_of(
        stages.predict_spec, experiment, wildcards.test, None, wildcards.student
    )


def native_predict_spec(wildcards):
    experiment = load(wildcards.experiment)
    declared(experiment.students, wildcards.student, "student")
    return spec_of(stages.predict_spec, experiment, wildcards.test, wildcards.student)


def teacher_predict_spec(wildcards):
    experiment = load(wildcards.experiment)
    declared(experiment.teachers, wildcards.teacher, "teacher")
    return spec_of(stages.predict_spec, experiment, wildcards.test, wildcards.teacher)


def score_spec(wildcards):
    return spec_of(stages.score_spec, load(wildcards.experiment))


def table_spec(wildcards):
    return spec_of(stages.table_spec, load(wildcards.experiment), wildcards.table)


def chart_spec(wildcards):
    return spec_of(stages.chart_spec, load(wildcards.experiment), wildcards.table)


def report_spec(wildcards):
    return spec_of(stages.report_spec, load(wildcards.experiment))


# --- inputs that depend on the experiment ---------------------------------------------------


def run_of(wildcards):
    """The run that a rule's wildcards name."""
    return Run(
        wildcards.dataset,
        wildcards.teacher,
        wildcards.student,
        wildcards.method,
        int(wildcards.fraction),
        int(wildcards.seed),
    )


def experiment_folder(wildcards):
    return f"results/{wildcards.experiment}"


def tables_folder(wildcards):
    return f"results/{wildcards.experiment}/tables"


def data_root(wildcards):
    return load(wildcards.experiment).data_root


def source_files(wildcards):
    """Files that a dataset is read from: their content, not their place, counts."""
    experiment = load(wildcards.experiment)
    dataset = declared(experiment.datasets, wildcards.dataset, "dataset")
    if not isinstance(dataset, FilesDataset):
        return []
    files = [f"{experiment.data_root}/{path}" for path in dataset.paths.values()]
    for file in files:
        if not Path(file).exists():
            refuse(
                f"{wildcards.experiment}.yaml: dataset '{wildcards.dataset}' names {file}, which "
                "does not exist. Give the folder that holds it: --config "
                f"experiment={wildcards.experiment} data_root=FOLDER"
            )
    return files


def all_data(wildcards):
    datasets = expansion.used_datasets(load(wildcards.experiment))
    return expand(
        "results/{experiment}/data/{dataset}",
        experiment=wildcards.experiment,
        dataset=datasets,
    )


def model_folder(experiment, name):
    """Where a model lies: trained or fetched by the workflow, or given by its path."""
    models = load(experiment).teachers | load(experiment).students
    model = declared(models, name, "model")
    if isinstance(model, MicroModel):
        return f"results/{experiment}/models/{name}/model"
    if isinstance(model, LocalModel):
        if not Path(model.path, "config.json").is_file():
            refuse(
                f"{experiment}.yaml: model '{name}' is said to lie in {model.path}, but there is no "
                "config.json. Correct its 'path'."
            )
        return model.path
    return f"results/{experiment}/hub/{name}/model"


def teacher_model(wildcards):
    return model_folder(wildcards.experiment, wildcards.teacher)


def student_model(wildcards):
    return model_folder(wildcards.experiment, wildcards.student)


def encoder_of(experiment):
    """BERTScore's encoder, where it comes from the hub."""
    encoder = experiment.evaluation.bertscore
    if encoder is None or Path(encoder.model).exists():
        return []
    return [f"results/{experiment.name}/hub/{fetching.ENCODER}/model"]


def bertscore_encoder(wildcards):
    """What scores need to be there before, beside predictions."""
    return encoder_of(load(wildcards.experiment))


def hub_sources():
    """What the selected experiment takes from the hub: models, and rows of datasets."""
    models = {**SELECTED.teachers, **SELECTED.students}
    fetched = [name for name, model in models.items() if isinstance(model, HubModel)]
    folders = [f"results/{SELECTED.name}/hub/{name}/model" for name in fetched]
    return (
        folders
        + encoder_of(SELECTED)
        + [
            f"results/{SELECTED.name}/data/{name}"
            for name, dataset in SELECTED.datasets.items()
            if isinstance(dataset, HubDataset)
        ]
    )


def run_method(wildcards):
    """The method that a run's wildcards name."""
    return declared(load(wildcards.experiment).methods, wildcards.method, "method")


def run_logits(wildcards):
    """The teacher's logits, where the method reads them."""
    method = run_method(wildcards)
    if not requirements.reads_logits(method):
        return []
    variant = variant_of(method, load(wildcards.experiment).logits)
    place = logits_path(wildcards.teacher, wildcards.dataset, variant)
    return f"results/{wildcards.experiment}/{place}"


def run_teacher(wildcards):
    """The teacher's model, where the method runs it or reads its tokens."""
    if not requirements.reads_teacher_model(run_method(wildcards)):
        return []
    return teacher_model(wildcards)


def run_base(wildcards):
    """The student that a run's adapters belong to, where they are kept alone."""
    return student_model(wildcards) if run_method(wildcards).keeps_adapters else []


def optional(**options):
    """Those of a command's options for which there is an input."""
    return " ".join(
        f"--{name} {shlex.quote(str(value))}"
        for name, value in options.items()
        if value
    )


def distill_options(wildcards, input):
    return optional(logits=input.logits, teacher=input.teacher)


def predict_options(wildcards, input):
    return optional(base=input.get("base"))


def distill_code(wildcards):
    """Digest of the code behind a student: the stage's, and its own loss's alone."""
    return code_digest(*distillation_modules(run_method(wildcards).loss))


def table_scores(wildcards):
    try:
        scores = expansion.table_scores(load(wildcards.experiment), wildcards.table)
    except KdError as error:
        refuse(error)
    return [f"results/{wildcards.experiment}/{path}" for path in scores]


def published_file(wildcards):
    published = load(wildcards.experiment).published
    return [] if published is None else str(loading.EXPERIMENTS / published)


def published_option(wildcards, input):
    return optional(published=input.published)


def report_inputs(suffix):
    """Input function: a file of each table of an experiment."""

    def paths(wildcards):
        tables = load(wildcards.experiment).tables
        return [
            f"results/{wildcards.experiment}/tables/{name}.{suffix}" for name in tables
        ]

    return paths


def report_code():
    """Digest of the code behind a report, its page's template included."""
    return [
        code_digest("kd.report.page"),
        path_digest(PACKAGE_ROOT / "kd/report/templates"),
    ]


@cache
def gpu_at_hand():
    """Whether jobs may find a GPU; what is decided for want of one is said."""
    if not workflow.local_exec or visible_gpus():
        return True
    print("no GPU can be seen: models run on the CPU (device: auto)", file=sys.stderr)
    return False


def gpus_of(experiment, processes=1):
    """One GPU for real models; micro models are faster on a core of their own."""
    models = (experiment.teachers | experiment.students).values()
    if experiment.device == "cpu" or all(
        isinstance(model, MicroModel) for model in models
    ):
        return 0
    return processes if experiment.device == "cuda" or gpu_at_hand() else 0


def gpus_for(wildcards):
    return gpus_of(load(wildcards.experiment))


def scoring_gpus(wildcards):
    """A GPU for BERTScore's encoder; other scores have no use for one."""
    if load(wildcards.experiment).evaluation.bertscore is None:
        return 0
    return gpus_for(wildcards)


def training_gpus(wildcards):
    """A GPU for each of the processes that train a student."""
    experiment = load(wildcards.experiment)
    return gpus_of(experiment, experiment.training.processes)


def refuse_too_few_gpus(experiment):
    """Snakemake would cut what a job asks for down to its own limit, without a word."""
    processes, limit = experiment.training.processes, workflow.global_resources.get(
        "gpu"
    )
    most = limit.value if limit is not None else None
    if processes > 1 and most and most < gpus_of(experiment, processes):
        refuse(
            f"{experiment.name}.yaml: 'training.processes' is {processes}, but a job may have "
            f"{most} GPU(s). Raise 'gpu' of 'resources' in the profile."
        )


refuse_too_few_gpus(SELECTED)


def selected_table(suffix):
    """Input function: a file of the selected experiment's table."""

    def path(wildcards):
        try:
            expansion.table_of(SELECTED, wildcards.table)
        except KdError as error:
            refuse(error)
        return f"results/{SELECTED.name}/tables/{wildcards.table}.{suffix}"

    return path


# --- the batch system -----------------------------------------------------------------------

if not workflow.is_main_process:
    # A job on a node of its own, where there may be no network: downloads are local rules.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # The process whose worker this names runs elsewhere, or outside of the job's limits.
    os.environ.update(KD_WORKER="")


def on_slurm():
    return workflow.executor_plugin.name == "slurm"


def take_over_cluster(logs):
    """Before the first job: end those of a killed Snakemake, which would write where ours do."""
    try:
        runs.cancel_orphans()
        if on_slurm():
            runs.note_run(logs)
            slurm.prefer_commands_of(Path(workflow.basedir, "profiles", "slurm"))
    except KdError as error:
        refuse(error)
