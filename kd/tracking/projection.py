"""Make the MLflow runs of an experiment agree with its results folder.

A run is found by its tags `kd.path` and `kd.identity`, never by MLflow's random id. Tracking
again writes nothing; another evaluation of the same student is added to its run; a subject
that was made anew gets a new run, and the old one is deleted as MLflow deletes: hidden,
marked with its successor, and restorable.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from kd.errors import ArtifactError
from kd.evaluation.predictions import read_predictions
from kd.provenance.canonical import canonical_json
from kd.tracking.server import Place, open_mlflow, place_of
from kd.tracking.subjects import CURVE, Evaluation, Metric, Subject, read_subjects

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

METRICS_PER_CALL = 800  # with parameters and tags at most 1000
PARAMS_PER_CALL = 100
DIGEST_LENGTH = 12  # as much as the runs table shows
SAMPLE_ROWS = 20


@dataclass(frozen=True)
class Tracked:
    """What was projected: the identity of every subject and evaluation, and what it took.

    `place` may be shown: it is without credentials.
    """

    experiment: str
    place: str
    identities: dict[str, str]
    created: int
    extended: int
    superseded: int

    def stamp(self) -> str:
        """Canonical JSON of what is tracked; free of times and of MLflow's random ids."""
        runs = [{"path": path, "identity": self.identities[path]} for path in self.identities]
        return canonical_json({"experiment": self.experiment, "runs": runs}) + "\n"


def track(
    results: Path, scores: Sequence[str], *, experiment: str, tracking_uri: str | None = None
) -> Tracked:
    """Project the subjects of `scores` into MLflow.

    Args:
        results: the experiment's results folder.
        scores: paths of scores below it, `<subject>/eval/<test_dataset>/scores.json`.
        experiment: name of the MLflow experiment.
        tracking_uri: where to, instead of `mlflow.db` in the results folder.

    Raises:
        ArtifactError: the folder, a curve or scores are missing or not what their manifest says.
        TrackingError: MLflow cannot be reached or used.
    """
    if not results.is_dir():
        raise ArtifactError(f"{results}: no such results folder. Give --results results/NAME.")
    subjects = read_subjects(results, scores)
    place = place_of(results, tracking_uri)
    # Two processes must neither create one database nor the same run at once.
    with (
        FileLock(results / ".mlflow.lock"),
        open_mlflow(place, experiment) as (client, experiment_id),
    ):
        projection = _Projection(client, experiment_id, experiment, results, place)
        done = [projection.project(subject) for subject in subjects]
    return Tracked(
        experiment=experiment,
        place=str(place),
        identities=_identities(subjects, set(scores)),
        created=done.count("created") + done.count("superseded"),
        extended=done.count("extended"),
        superseded=done.count("superseded"),
    )


def _identities(subjects: Sequence[Subject], scores: set[str]) -> dict[str, str]:
    """Identities by path, of what was asked for only: the stamp depends on nothing else."""
    found = {subject.path: subject.identity for subject in subjects}
    for subject in subjects:
        for evaluation in subject.evaluations:
            path = f"{subject.path.partition('/eval/')[0]}/eval/{evaluation.dataset}"
            if f"{path}/scores.json" in scores:
                found[path] = evaluation.identity
    return dict(sorted(found.items()))


class _Projection:
    """One pass over the MLflow runs of one experiment."""

    def __init__(
        self,
        client: "MlflowClient",
        experiment_id: str,
        experiment: str,
        results: Path,
        place: Place,
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._experiment = experiment
        self._owner = str(results.resolve())
        self._shared = place.database is None
        self._known: dict[str, list[Run]] = {}
        for run in self._all_runs():
            self._known.setdefault(run.data.tags.get("kd.path", ""), []).append(run)

    def project(self, subject: Subject) -> str:
        """Bring MLflow up to date with `subject`; returns what that took."""
        known = self._known.get(subject.path, [])
        current = next((run for run in known if _agrees(run, subject)), None)
        if current is not None:
            missing = [e for e in subject.evaluations if _tag(e) not in current.data.tags]
            self._add(current.info.run_id, missing)
            return "extended" if missing else "unchanged"
        run_id = self._create(subject)
        outdated = [run for run in known if self._is_own(run)]
        for run in outdated:
            self._client.set_tag(run.info.run_id, "kd.superseded_by", run_id)
            self._client.delete_run(run.info.run_id)
        return "superseded" if outdated else "created"

    def _all_runs(self) -> "Iterator[Run]":
        token: str | None = None
        while True:
            page = self._client.search_runs([self._experiment_id], page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _is_own(self, run: "Run") -> bool:
        # A shared server may hold a colleague's run of the same path: that one stays.
        return not self._shared or run.data.tags.get("kd.results") == self._owner

    def _create(self, subject: Subject) -> str:
        run = self._client.create_run(
            self._experiment_id,
            start_time=subject.started,
            tags=_tags(subject) | {"experiment": self._experiment, "kd.results": self._owner},
            run_name=subject.name,
        )
        run_id: str = run.info.run_id
        self._log(run_id, subject.metrics(), subject.params(), subject.ended)
        self._log_dataset(run_id, subject)
        for name in ("distill.manifest.json", CURVE):
            if (subject.folder / name).is_file():
                self._client.log_artifact(run_id, str(subject.folder / name))
        self._add(run_id, subject.evaluations)
        # Last: a run that is not finished was cut short, and is made anew next time.
        self._client.set_terminated(run_id, "FINISHED", end_time=subject.ended)
        return run_id

    def _add(self, run_id: str, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in evaluations:
            folder = f"eval/{evaluation.dataset}"
            for name in ("predict.manifest.json", "score.manifest.json", "scores.json"):
                self._client.log_artifact(run_id, str(evaluation.folder / name), folder)
            sample = _sample(evaluation.folder / "predictions.parquet")
            self._client.log_text(run_id, sample, f"{folder}/predictions_sample.csv")
            # Its tag comes last: without it, an evaluation is logged anew next time.
            tags = {_tag(evaluation): evaluation.identity}
            metrics, params = evaluation.metrics(), evaluation.params()
            self._log(run_id, metrics, params, evaluation.ended, tags)

    def _log_dataset(self, run_id: str, subject: Subject) -> None:
        """The rows, by their hash, as MLflow's input dataset."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        split, sha256 = subject.rows
        dataset = Dataset(subject.axes["dataset"], sha256[:DIGEST_LENGTH], "parquet", sha256)
        tags = [InputTag("mlflow.data.context", split)]
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags)])

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: dict[str, str],
        time: int,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Metrics and parameters, then tags, in as few calls as there may be."""
        from mlflow.entities import Metric as Point
        from mlflow.entities import Param, RunTag

        points = [Point(metric.name, metric.value, time, metric.step) for metric in metrics]
        entries = [Param(key, value) for key, value in sorted(params.items())]
        marks = [RunTag(key, value) for key, value in (tags or {}).items()]
        while len(points) > METRICS_PER_CALL or len(entries) > PARAMS_PER_CALL:
            first = points[:METRICS_PER_CALL], entries[:PARAMS_PER_CALL]
            self._client.log_batch(run_id, metrics=first[0], params=first[1])
            points, entries = points[METRICS_PER_CALL:], entries[PARAMS_PER_CALL:]
        self._client.log_batch(run_id, metrics=points, params=entries, tags=marks)


def _tag(evaluation: Evaluation) -> str:
    return f"kd.scores.{evaluation.dataset}"


def _agrees(run: "Run", subject: Subject) -> bool:
    """Whether `run` is finished and tells of nothing but `subject` as it is now."""
    tags = run.data.tags
    return (
        run.info.status == "FINISHED"
        and tags.get("kd.identity") == subject.identity
        and all(tags.get(_tag(e), e.identity) == e.identity for e in subject.evaluations)
    )


def _tags(subject: Subject) -> dict[str, str]:
    """What runs are compared and found by. MLflow itself loses the commit of a `kd` command."""
    context, hashed = subject.origin["context"], subject.origin["hashed"]
    commit = context["commit"] or "unknown"
    return {
        **subject.axes,
        "kind": subject.kind,
        "kd.path": subject.path,
        "kd.identity": subject.identity,
        "kd.code": hashed["code"],
        "git.commit": commit,
        "git.dirty": {True: "true", False: "false"}.get(context["dirty"], "unknown"),
        "mlflow.source.name": f"kd {hashed['stage']}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "mlflow.note.content": f"`{subject.path}`, identity `{subject.identity}`",
    }


def _sample(predictions: Path) -> str:
    """The first predictions beside their references, as csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "prediction", "references", "finish_reason", "tokens"])
    for row in read_predictions(predictions)[:SAMPLE_ROWS]:
        references = " | ".join(row.references)
        writer.writerow([row.id, row.prediction, references, row.finish_reason, row.tokens])
    return text.getvalue()
