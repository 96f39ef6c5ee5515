"""A model card in the Hugging Face hub's format, from the manifests of a run.

Its head is YAML as the hub reads it; what no manifest knows (uses, risks, this model's licence) is
named as missing rather than invented.
"""

import json
from typing import Any

import yaml

from kd.audit.chain import Artifact
from kd.audit.places import run_at
from kd.audit.scope import Scope
from kd.evaluation.scoring import read_scores
from kd.experiment.layout import Run
from kd.experiment.models import HubModel
from kd.exports.facts import gather
from kd.exports.statement import timestamp
from kd.exports.subject import finished

# The hub's names of tasks.
_TASKS = {"qa": "question-answering", "summary": "summarization"}


def render_card(scope: Scope, artifact: Artifact, licence: str) -> str:
    """The card of one distilled student."""
    run = run_at(artifact.folder)
    assert run is not None, artifact.folder
    results = _results(scope)
    head = _metadata(scope, artifact, run, results, licence)
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n\n{_body(scope, artifact, run, results, licence)}"


def model_name(run: Run) -> str:
    """A name for the student that tells it from its siblings."""
    share = "" if run.fraction == 100 else f"-{run.fraction}pct"
    return f"{run.student}-{run.method}-from-{run.teacher}-on-{run.dataset}{share}-s{run.seed}"


def _metadata(
    scope: Scope, artifact: Artifact, run: Run, results: list[dict[str, Any]], licence: str
) -> dict[str, Any]:
    adapters = artifact.spec["method"].get("lora") and not artifact.spec["method"]["lora"]["merge"]
    head: dict[str, Any] = {
        "library_name": "peft" if adapters else "transformers",
        "pipeline_tag": _pipeline(scope, artifact),
        "tags": ["knowledge-distillation", str(artifact.spec["method"]["loss"])],
    }
    if licence:
        head["license"] = licence
    base = _hub_student(scope, run)
    if base:
        head["base_model"] = base
    repos = _hub_datasets(scope)
    if repos:
        head["datasets"] = repos
    if results:
        head["metrics"] = list(dict.fromkeys(found["metric"] for found in results))
        entries = [_index_entry(scope, found) for found in results]
        head["model-index"] = [{"name": model_name(run), "results": entries}]
    return head


def _pipeline(scope: Scope, artifact: Artifact) -> str:
    """How the weights generate, from their configuration: the hub's tag for either kind."""
    path = scope.results / artifact.folder / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    return "text2text-generation" if config.get("is_encoder_decoder") else "text-generation"


def _hub_student(scope: Scope, run: Run) -> str:
    """The hub's name of the model that the student started from; empty where it has none."""
    if scope.experiment is None:
        return ""
    student = scope.experiment.students.get(run.student)
    return student.repo if isinstance(student, HubModel) else ""


def _hub_datasets(scope: Scope) -> list[str]:
    declared = (one.spec.get("dataset", {}) for one in scope.of_stage("data"))
    return sorted({str(one["repo"]) for one in declared if one.get("source") == "hub"})


def _results(scope: Scope) -> list[dict[str, Any]]:
    """Every mean score of the run on test rows, in percent."""
    found = []
    for evaluation in scope.evaluations:
        scores = read_scores(scope.results / evaluation.place / "scores.json")
        for metric in evaluation.score.spec.get("evaluation", {}).get("metrics", []):
            value = scores.mean(metric)
            if value is not None:
                entry = {"dataset": evaluation.dataset, "metric": metric, "value": round(value, 2)}
                found.append(entry | {"rows": evaluation.predict.notes.get("rows")})
    return found


def _index_entry(scope: Scope, found: dict[str, Any]) -> dict[str, Any]:
    data = scope.chain.artifact(f"data/{found['dataset']}", "data").spec.get("dataset", {})
    task = str(data.get("task", ""))
    kind = _TASKS.get(task.partition("_")[0], "text-generation")
    return {
        "task": {"type": kind, "name": task or kind},
        "dataset": _dataset(found["dataset"], data) | {"split": "test"},
        "metrics": [
            {"type": found["metric"], "value": found["value"], "name": f"{found['metric']} (%)"}
        ],
    }


def _dataset(name: str, declared: dict[str, Any]) -> dict[str, str]:
    """A dataset's name and the hub's; generated rows must not pass for the hub's dataset."""
    if declared.get("source") == "hub":
        told = {"name": name, "type": str(declared["repo"])}
        revision = declared.get("revision")
        return told | ({"revision": str(revision)} if revision else {})
    origin = "generated" if declared.get("source") == "micro" else "local"
    return {"name": f"{name} ({origin} rows)", "type": f"{origin}-{name}"}


def _body(
    scope: Scope, artifact: Artifact, run: Run, results: list[dict[str, Any]], licence: str
) -> str:
    facts = gather(scope)
    end = finished(artifact)
    rows = scope.chain.artifact(f"data/{run.dataset}", "data").spec.get("dataset", {})
    made = {
        "Student": run.student,
        "Teacher": run.teacher,
        "Training data": f"{run.fraction} % of {_dataset(run.dataset, rows)['name']}",
        "Method": f"`{run.method}` (loss `{artifact.spec['method']['loss']}`)",
        "Seed": str(run.seed),
        "Parameters": facts.sizes or "not known",
        "Trained": timestamp(end) if end else "not known",
        "Code": facts.code or "no commit is known",
        "Identity": f"`{artifact.identity}`",
    }
    lines = [
        f"# {model_name(run)}",
        "",
        f"The student {run.student}, distilled from {run.teacher} on {run.dataset}. Written from "
        "manifests by `kd export model`; `distill.manifest.json` is beside it.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in made.items()),
        "",
        "## Results",
        "",
        *_table(results),
        "",
        "## Training",
        "",
        f"{facts.hyperparameters}.",
        "",
        f"Checkpoint: {facts.selection}. Rows: {facts.splits}.",
        "",
        f"Compute, with all that it was made from: {facts.compute}.",
        "",
        f"Versions: {facts.software}.",
        "",
        *_made_of(scope),
        "## Not known from manifests",
        "",
        "Intended uses, limitations, risks and biases"
        + ("." if licence else ", and the licence: check those of student, teacher and rows."),
        "",
    ]
    return "\n".join(lines)


def _made_of(scope: Scope) -> list[str]:
    """What came from the hub, at which commit and under which licence, as its card states it."""
    taken = [(one.spec, one.notes) for one in scope.of_stage("fetch")]
    rows = [(one.spec.get("dataset", {}), one.notes) for one in scope.of_stage("data")]
    taken += [(spec, notes) for spec, notes in rows if spec.get("source") == "hub"]
    if not taken:
        return []
    lines = [
        f"| {spec['repo']} | {str(notes.get('commit', 'not known'))[:12]} "
        f"| {notes.get('licence') or 'not stated'} |"
        for spec, notes in taken
    ]
    head = ["## From the hub", "", "| repository | commit | licence |", "|---|---|---|"]
    return [*head, *lines, "", "Their licences may bind this model.", ""]


def _table(results: list[dict[str, Any]]) -> list[str]:
    if not results:
        return ["No test scores lie below this run."]
    rows = [f"| {r['dataset']} | {r['metric']} | {r['value']:.2f} | {r['rows']} |" for r in results]
    return ["| test rows of | metric | score, % | rows |", "|---|---|---|---|", *rows]
