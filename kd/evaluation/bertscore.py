"""BERTScore F1 per example, by the `bert_score` package, reproducibly and without network.

`bert_score` groups sentences in the order of a hash set, so that its batches, and the last
bits of its scores, change from one process to the next. Here the embeddings and the greedy
matching are its own, but the order of sentences is fixed, and values are rounded to what
does not depend on the batch (Zhang et al. 2020, https://arxiv.org/abs/1904.09675).

The encoder is a folder, or a hub name where there is network or a cached copy. Where there
is none, the caller gets an `Unavailable` with the reason, not an error: a table then says so.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kd.errors import ModelError
from kd.experiment.schema import BertScore
from kd.provenance.canonical import file_digest

if TYPE_CHECKING:
    import torch
    from bert_score import BERTScorer

_BATCH_SIZE = 32
# Other batches move a score by about 1e-7; five decimals are stable.
_DECIMALS = 5


@dataclass(frozen=True)
class Unavailable:
    """Why there is no score, in words that depend on the experiment file alone."""

    reason: str


@dataclass(frozen=True)
class Encoder:
    """What the scores depend on. The folder's place does not count; its weights do."""

    model: str
    layer: int
    rescaled: bool
    weights_sha256: str


@dataclass(frozen=True)
class BertScores:
    """F1 per example (about -1 to 1; unbounded below when rescaled) and the encoder."""

    f1: list[float]
    encoder: Encoder


def bert_f1(
    predictions: Sequence[str], references: Sequence[Sequence[str]], settings: BertScore
) -> BertScores | Unavailable:
    """Best BERTScore F1 over each example's references, rounded to five decimals.

    A blank prediction has a raw score of 0, as in the ULD authors' results; rescaling turns
    that into a large negative number (-4.9 for roberta-large), so mind the empty answers.

    Raises:
        ModelError: the encoder has fewer layers than `settings.layer`.
    """
    folder = _encoder_folder(settings)
    if isinstance(folder, Unavailable):
        return folder
    _check_layer(folder, settings)
    scorer = _load(folder, settings)
    texts = {text for group in references for text in group} | set(predictions)
    embedded = _embed(scorer, texts)
    raw = [
        max(_match(embedded, prediction, reference) for reference in group)
        for prediction, group in zip(predictions, references, strict=True)
    ]
    base = float(scorer.baseline_vals[2]) if settings.rescale else 0.0
    encoder = Encoder(_name(settings), settings.layer, settings.rescale, _weights_digest(folder))
    return BertScores([round((f1 - base) / (1 - base), _DECIMALS) for f1 in raw], encoder)


def _name(settings: BertScore) -> str:
    """The last part of a folder's path, or the hub name: never where a folder lies."""
    path = Path(settings.model)
    return path.name if path.is_absolute() or path.exists() else settings.model


def _encoder_folder(settings: BertScore) -> Path | Unavailable:
    try:
        import bert_score  # noqa: F401  (an optional package)
    except ImportError:
        return Unavailable("the package bert-score is not installed")
    name = _name(settings)
    folder = _folder(settings.model, settings.revision)
    if folder is None:
        return Unavailable(f"no local folder '{name}', and the hub cannot be reached")
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        return Unavailable(f"'{name}' has no config.json or no *.safetensors weights")
    if settings.rescale and not _baseline(name).is_file():
        return Unavailable(f"bert-score has no rescaling baseline for '{name}'")
    return folder


def _folder(model: str, revision: str | None) -> Path | None:
    path = Path(model)
    if path.is_dir():
        return path.resolve()
    if path.is_absolute() or model.startswith("."):
        return None
    from huggingface_hub import snapshot_download  # only for hub names

    try:
        found = snapshot_download(
            model, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors"]
        )
    except (OSError, ValueError):  # no network, no such repository, no valid name
        return None
    return Path(found)


def _baseline(name: str) -> Path:
    import bert_score

    return Path(bert_score.__file__).parent / "rescale_baseline" / "en" / f"{Path(name).name}.tsv"


def _weights_digest(folder: Path) -> str:
    """SHA-256 of the weights file; of several, of their digests in the order of their names."""
    digests = [file_digest(path) for path in sorted(folder.glob("*.safetensors"))]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _check_layer(folder: Path, settings: BertScore) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    layers = config.get("num_hidden_layers")
    if layers is not None and settings.layer > layers:
        raise ModelError(
            f"evaluation.bertscore.layer is {settings.layer}, but '{_name(settings)}' has "
            f"{layers} layers: choose 1 to {layers}."
        )


def _load(folder: Path, settings: BertScore) -> "BERTScorer":
    from bert_score import BERTScorer  # imports torch
    from tokenizers.pre_tokenizers import ByteLevel

    scorer = BERTScorer(
        model_type=str(folder),
        num_layers=settings.layer,
        lang="en",
        rescale_with_baseline=settings.rescale,
        baseline_path=str(_baseline(_name(settings))) if settings.rescale else None,
    )
    # RoBERTa's first word is to be encoded as one inside a text. bert-score asks for it in every
    # call (`add_prefix_space`), which transformers 5 ignores: what it heeds is set once.
    backend = getattr(scorer._tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.pre_tokenizer, ByteLevel):
        backend.pre_tokenizer = ByteLevel(add_prefix_space=True)
    return scorer


Embedded = dict[str, tuple["torch.Tensor", "torch.Tensor"]]


def _embed(scorer: "BERTScorer", texts: Iterable[str]) -> Embedded:
    """Token embeddings [tokens, width] and token weights [tokens] of each text that has any."""
    from bert_score.utils import get_bert_embedding

    ordered = sorted((text for text in texts if text.strip()), key=lambda text: (len(text), text))
    embedded: Embedded = {}
    for start in range(0, len(ordered), _BATCH_SIZE):
        batch = ordered[start : start + _BATCH_SIZE]
        vectors, masks, weights = get_bert_embedding(
            batch, scorer._model, scorer._tokenizer, _token_weights(scorer), device=scorer.device
        )
        for text, vector, mask, weight in zip(batch, vectors, masks, weights, strict=True):
            length = int(mask.sum())
            embedded[text] = vector[:length].cpu(), weight[:length].cpu()
    return embedded


def _token_weights(scorer: "BERTScorer") -> dict[int, float]:
    # As in `BERTScorer.score` without inverse document frequencies.
    special = {scorer._tokenizer.sep_token_id: 0.0, scorer._tokenizer.cls_token_id: 0.0}
    return defaultdict(lambda: 1.0, special)


def _match(embedded: Embedded, prediction: str, reference: str) -> float:
    """Raw F1 of one pair: every token is matched with the most similar one of the other text."""
    from bert_score.utils import greedy_cos_idf

    if prediction not in embedded or reference not in embedded:
        return 0.0
    _, _, f1 = greedy_cos_idf(*_alone(embedded[reference]), *_alone(embedded[prediction]))
    return float(f1[0])


def _alone(text: tuple["torch.Tensor", "torch.Tensor"]) -> tuple["torch.Tensor", ...]:
    """A batch of one: embeddings, mask and weights. Copies, since the matching writes to them."""
    vectors, weights = text
    mask = weights.new_ones(1, len(weights))
    return vectors[None].clone(), mask, weights[None].clone()
