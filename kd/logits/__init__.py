"""The teacher-logit store: what a teacher predicted, written once and read by every student.

    with LogitWriter(folder, vocabulary=32000, epsilon=1e-3) as writer:
        writer.add("row-1", token_ids, logits, ends=ends)      # [T], [T, V], [T]

    reader = LogitReader(folder)
    batch = collate([reader["row-1"], reader["row-2"]])      # kd.losses.TeacherLogits

Of each answer token's distribution it holds the likeliest tokens until the mass of all others
is at most `epsilon` (or `cap` tokens are kept), in descending order, and that mass; of the
answer's own token its log-probability, kept or not, and where it ends in the text. How exact
all that is, it says as well. docs/logit-store.md describes the format.
"""

from kd.logits.batch import collate
from kd.logits.index import Origin
from kd.logits.reader import LogitReader
from kd.logits.rows import AnswerBatch, TeacherRow
from kd.logits.topk import keep_top_k
from kd.logits.writer import LogitWriter

__all__ = [
    "AnswerBatch",
    "LogitReader",
    "LogitWriter",
    "Origin",
    "TeacherRow",
    "collate",
    "keep_top_k",
]
