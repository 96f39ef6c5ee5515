"""What stage `fetch` reads of the experiment: a model of the hub, or BERTScore's encoder."""

from kd.errors import ExperimentError
from kd.experiment.base import Strict
from kd.experiment.models import HubModel
from kd.experiment.schema import Experiment

ENCODER = "bertscore-encoder"  # name of its folder beside those of models


class FetchSpec(Strict):
    """Stage `fetch`: one model of the hub."""

    repo: str
    revision: str
    convert_pickle: bool = False


def fetch_spec(experiment: Experiment, name: str) -> FetchSpec:
    """Specification of a model of the hub, or of the encoder behind BERTScore.

    Raises:
        ExperimentError: the model is from elsewhere.
    """
    encoder = experiment.evaluation.bertscore
    if name == ENCODER and encoder is not None:
        return FetchSpec(repo=encoder.model, revision=encoder.revision or "main")
    model = (experiment.teachers | experiment.students)[name]
    if not isinstance(model, HubModel):
        raise ExperimentError(
            f"experiment '{experiment.name}': '{name}' has source '{model.source}', so there is "
            "nothing to fetch."
        )
    return FetchSpec(repo=model.repo, revision=model.revision, convert_pickle=model.convert_pickle)
