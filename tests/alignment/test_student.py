"""Every answer token of the student is a row."""

import torch

from kd.alignment import AnswerTokens, find_alignment


def test_all_tokens_of_the_student_have_a_row_where_the_teacher_answers() -> None:
    student = AnswerTokens(torch.tensor([3, 2, 0, 1]))
    teacher = AnswerTokens(torch.tensor([2, 0, 4, 5]))
    pairs = find_alignment("student")(student, teacher)
    assert pairs.sequence.tolist() == [0, 0, 0, 3]
    assert pairs.student.tolist() == pairs.student_first.tolist() == [0, 1, 2, 0]
    assert pairs.teacher.tolist() == pairs.teacher_first.tolist() == [0, 1, 1, 0]
