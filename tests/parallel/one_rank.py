"""One of the processes of a training: `python one_rank.py JSON`, started by the tests.

Writes the curve, the weights and what else they compare to `<out>/<rank>.pt`.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kd import interruption
from kd.experiment.methods import Method
from kd.experiment.schema import Training
from kd.logits import LogitReader
from kd.parallel.ranks import Group, Ranks, join
from kd.resume.checkpoints import CheckpointFolder
from kd.training.batches import Collator
from kd.training.examples import Example
from kd.training.loop import Loop, Material
from kd.training.objective import Objective

VOCABULARY = 40
ROWS, VALIDATION = 9, 5


def examples() -> list[Example]:
    """Rows whose answers have one to five tokens; number 0 ends them."""
    draw = torch.Generator().manual_seed(2)
    found = []
    for row in range(ROWS + VALIDATION):
        text = torch.randint(1, VOCABULARY, (4 + 1 + row % 5,), generator=draw).tolist()
        target = [*text[4:], 0]
        found.append(Example(f"r{row}", text[:4], target, list(range(len(target))), "-"))
    return found


def build(store: Path, ranks: Ranks, settings: dict) -> Loop:
    torch.manual_seed(7 + ranks.rank)  # ranks have to agree on rank 0's weights by themselves
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).double()
    rows = examples()
    fused = settings.get("fused_head", False)
    objective = Objective(Method(loss="uld"), eos_token_id=0, shift=True, fused_head=fused)
    collate = Collator(0, encoder_decoder=False, store=LogitReader(store))
    return Loop(
        model,
        objective,
        Material(rows[:ROWS], rows[ROWS:], collate),
        training=Training(**settings),
        seed=3,
        ranks=ranks,
    )


def main(order: dict) -> None:
    interruption.install()
    out = Path(order["out"])
    ranks = join(order["training"].get("processes", 1), lambda: torch.device("cpu"))
    if order.get("unwrapped"):
        Group.wrap = lambda self, module, *, partly=False: module
        Group.apart = Ranks.apart
    loop = build(Path(order["store"]), ranks, order["training"])

    def advance(step: int, note: str) -> None:
        if step == order.get("kill_at") and ranks.rank == order["kill_rank"]:
            os.kill(os.getpid(), order["signal"])

    loop.run(CheckpointFolder(out / "checkpoints", "f"), advance)
    ranks.close()
    torch.save(
        {"history": loop.history, "weights": dict(loop.model.state_dict()), "best": loop.best},
        out / f"{ranks.rank}.pt",
    )


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except interruption.Interrupted:
        sys.exit(interruption.EXIT_STATUS)
