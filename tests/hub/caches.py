"""Repositories in the hub's own cache format, made by the tests: no network is touched.

A cache holds `models--ORG--NAME/{refs/REVISION, snapshots/COMMIT/…}`; with HF_HUB_OFFLINE=1 the
hub's client reads it as it would what it downloaded.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    OPTConfig,
    PreTrainedModel,
)

from kd.experiment.models import TokenizerSpec
from kd.hub.access import COMMIT
from kd.models.tokenizers import train_tokenizer

TEXTS = ["Context: Ada was born in Oslo.\nQuestion: Where was Ada born?\nAnswer: Oslo\n"] * 3
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
CONTEXT = {"max_position_embeddings": 1024}
CONFIGURATIONS = {
    "llama": lambda size: LlamaConfig(**SMALL, **CONTEXT, intermediate_size=32, vocab_size=size),
    "opt": lambda size: OPTConfig(
        **SMALL, **CONTEXT, ffn_dim=32, word_embed_proj_dim=16, vocab_size=size
    ),
    "gpt_neox": lambda size: GPTNeoXConfig(
        **SMALL, **CONTEXT, intermediate_size=32, vocab_size=size
    ),
    "bloom": lambda size: BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=size),
    "mt5": lambda size: MT5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=size
    ),
}
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
    "message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def commit_of(name: str) -> str:
    """Some commit: 40 hexadecimal digits."""
    return hashlib.sha1(name.encode()).hexdigest()


def build(family: str, folder: Path) -> PreTrainedModel:
    """A tiny random model and its tokenizer, as its makers would publish it."""
    algorithm = {"llama": "metaspace_bpe", "mt5": "unigram"}.get(family, "byte_bpe")
    tokenizer = train_tokenizer(TokenizerSpec(algorithm=algorithm, vocabulary=320), TEXTS)
    config = CONFIGURATIONS[family](len(tokenizer) + 8)  # models are often wider
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    torch.manual_seed(0)
    if family == "mt5":
        config.decoder_start_token_id = tokenizer.pad_token_id
        model = MT5ForConditionalGeneration(config)
    else:
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    if family == "llama":
        tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n")
    return model


def as_pickle(folder: Path) -> None:
    """Weights as old repositories have them."""
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()


class HubCache:
    """A cache below `home` (HF_HOME)."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def repository(self, name: str, kind: str = "model") -> Path:
        """A repository's folder."""
        return self.home / "hub" / f"{kind}s--{name.replace('/', '--')}"

    def snapshot(self, name: str, *revisions: str, kind: str = "model", commit: str = "") -> Path:
        """The folder of a new commit, with files to be put in it; `revisions` point at it."""
        place = self.repository(name, kind)
        commit = commit or commit_of(f"{name}/{'/'.join(revisions)}")
        for revision in revisions:
            ref = place / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(commit)
        folder = place / "snapshots" / commit
        folder.mkdir(parents=True)
        return folder

    def seal(self, folder: Path) -> None:
        """Move a snapshot's files to blobs, with links in their places, as the client does."""
        blobs = folder.parents[1] / "blobs"
        blobs.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir()):
            blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
            file.rename(blob)
            file.symlink_to(Path("../../blobs") / blob.name)

    def model(self, family: str, name: str, *revisions: str) -> str:
        """A model's repository; returns its commit."""
        folder = self.snapshot(name, *(revisions or ("main",)))
        build(family, folder)
        self.seal(folder)
        return folder.name

    def dataset(
        self, name: str, files: dict[str, list[dict]], revision: str = "main", card: str = ""
    ) -> str:
        """A dataset's repository of parquet, csv or jsonl files; returns its commit."""
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        if COMMIT.fullmatch(revision):
            folder = self.snapshot(name, kind="dataset", commit=revision)
        else:
            folder = self.snapshot(name, revision, kind="dataset")
        if card:
            (folder / "README.md").write_text(card)
        for path, records in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".parquet":
                pq.write_table(pa.Table.from_pylist(records), file)
            elif file.suffix == ".csv":
                pd.DataFrame(records).to_csv(file, index=False)
            else:
                file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return folder.name
