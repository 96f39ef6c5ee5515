"""Stage `fetch`: a model of the hub as a folder like those of models that are trained here.

The folder holds links into the hub's cache, so that experiments share one copy of the weights.
Its digest is that of what the links lead to: later stages verify it as any other input's.
"""

import shutil
from pathlib import Path

from kd.experiment.fetching import FetchSpec
from kd.hub.access import Repository
from kd.hub.snapshots import DESCRIPTION, SAFETENSORS, Snapshot, fetch_weights, has_safetensors
from kd.provenance.files import atomic_directory
from kd.provenance.manifest import StageRecord


def fetch_model(spec: FetchSpec, out: Path) -> None:
    """Fetch a model and its tokenizer and write the folder `out/model`.

    Raises:
        HubError: it cannot be had, or has no weights that may be read.
    """
    record = StageRecord("fetch", spec, {}, ("kd.hub.models",), tensors=spec.convert_pickle)
    if record.is_done(out / "model"):
        return
    repository = Repository("model", spec.repo, spec.revision)
    snapshot = fetch_weights(repository, convert_pickle=spec.convert_pickle)
    converted = not has_safetensors(snapshot)
    with atomic_directory(out / "model") as staging:
        for file in snapshot.files((*DESCRIPTION, *SAFETENSORS)):
            _link(file, staging / file.name)
        if converted:
            from kd.hub.conversion import convert_pickle

            convert_pickle(snapshot, staging)
    record.write(out / "model", notes=_notes(snapshot, out / "model", converted))


def _link(file: Path, place: Path) -> None:
    """A link to `file`, or a copy of it where the file system knows no links."""
    try:
        place.symlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, place)


def _notes(snapshot: Snapshot, folder: Path, converted: bool) -> dict[str, object]:
    return {
        "commit": snapshot.commit,
        "licence": snapshot.licence(),
        "weights": "converted from a pickle" if converted else "safetensors",
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
    }
