"""The small files of the experiment made by hand: weights, stores, curves, answers, projections."""

import csv
import hashlib
import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from kd.data.prompts import build_prompt
from kd.data.rows import Row
from kd.evaluation.predictions import Prediction
from kd.experiment.layout import Run
from kd.provenance.canonical import canonical_json, digest, file_digest
from kd.provenance.manifest import read_manifest

DATASET, TEACHER, STUDENT = "squad", "llama", "opt"
STEPS = 6
MACHINE = {"machine": "x86_64", "cpu_capability": "AVX512", "device": "cpu", "threads": 1}


def weights_of(name: str) -> dict[str, Any]:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return {"layer.weight": np.random.default_rng(seed).standard_normal((8, 4), dtype=np.float32)}


def write_model(folder: Path, tensors: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "tiny"}\n', encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")


def write_store(folder: Path) -> None:
    """A logit store of two shards, in the layout of `kd.logits`, without importing torch."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for number in range(2):
        path = folder / f"shard-{number:05d}.safetensors"
        save_file({"log_probs": np.full(64, -1.0 - number, dtype=np.float32)}, path)
        size, sha256 = path.stat().st_size, file_digest(path)
        shards.append({"file": path.name, "bytes": size, "sha256": sha256, "ids": [f"r{number}"]})
    index = {
        **{"schema_version": 4, "vocabulary": 64, "epsilon": 1e-4, "cap": None, "ids": True},
        **{"precision": "full", "step": None, "temperatures": [], "draws": None, "origin": {}},
    }
    index["shards"] = shards
    text = canonical_json(index | {"digest": digest(index)})
    (folder / "index.json").write_text(text, encoding="utf-8")


def curve_of(run: Run) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        loss = 4.0 / step + run.seed / 100
        records.append({"step": step, "loss": loss, "cross_entropy": loss, "gradient_norm": 1.0})
        if step % 3 == 0:
            found = STEPS / step
            ce = found + (1 if run.method == "uld" else 2 + run.seed**2 / 100)
            validated = {"validation_loss": found, "validation_cross_entropy": ce}
            records.append({"step": step} | validated)
    return records


def predicted(row: Row, shots: list[Row], who: str, skill: float) -> Prediction:
    chance = random.Random(f"{who}/{row.id}")
    right = chance.random() < skill
    doubt = chance.random() / 10
    prompt = build_prompt(row, shots)
    return Prediction(
        id=row.id,
        prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
        prediction=row.answers[0] if right else "nobody knows",
        references=row.answers,
        finish_reason="newline",
        tokens=3,
        confidence=round(1 - doubt if right else doubt, 4),
    )


def write_published(path: Path, values: dict[str, float]) -> None:
    lines = ["dataset,teacher,student,fraction,column,metric,value,source,note"]
    lines += [
        f"{DATASET},{TEACHER},{STUDENT},100,{column},f1,{value:.2f},made up,"
        for column, value in values.items()
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_readme(root: Path, table: Path) -> None:
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "f1"]
    machine = f"{MACHINE['machine']}/{MACHINE['cpu_capability']}"
    lines = [
        "# A project",
        f"<!-- figures: experiment=tiny table=table2 seeds=3 machine={machine} -->",
        "| dataset | metric | student | teacher (llama) | native | teacher text | ULD |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = [row[name] for name in ("teacher_score", "native", "teacher_text", "uld")]
        shown = " | ".join(f"{float(value):.1f}" for value in figures)
        lines.append(f"| {row['dataset']} | {row['metric']} | {row['student']} | {shown} |")
    (root / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_mlflow(results: Path) -> None:
    """The part of MLflow's schema that the audit reads, with the runs that `kd track` makes."""
    (results / "tables" / "table2.tracked.json").write_text("{}\n", encoding="utf-8")
    with sqlite3.connect(results / "mlflow.db") as database:
        database.execute("CREATE TABLE runs (run_uuid TEXT, lifecycle_stage TEXT)")
        database.execute("CREATE TABLE tags (run_uuid TEXT, key TEXT, value TEXT)")
        database.execute("CREATE TABLE latest_metrics (run_uuid TEXT, key TEXT, value FLOAT)")
        for number, file in enumerate(sorted(results.rglob("score.manifest.json"))):
            folder = file.parent.relative_to(results).as_posix()
            subject = folder.partition("/eval/")[0]
            path = subject if subject.startswith("runs/") else folder
            scores = json.loads((file.parent / "scores.json").read_text(encoding="utf-8"))
            run = str(number)
            database.execute("INSERT INTO runs VALUES (?, 'active')", (run,))
            tags = {"kd.path": path, f"kd.scores.{DATASET}": read_manifest(file)["identity"]}
            for key, value in tags.items():
                database.execute("INSERT INTO tags VALUES (?, ?, ?)", (run, key, value))
            for name, found in scores["metrics"].items():
                if "mean" in found:
                    key = f"test/{DATASET}/{name}"
                    entry = (run, key, found["mean"])
                    database.execute("INSERT INTO latest_metrics VALUES (?, ?, ?)", entry)
    database.close()
