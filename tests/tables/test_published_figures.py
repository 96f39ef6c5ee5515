"""The paper's released figures: complete, sourced, and corrected where they are wrong."""

from collections import Counter

import pytest

from kd.errors import ArtifactError
from kd.experiment.loading import EXPERIMENTS
from kd.tables.published import read_published

METRICS = {
    "squad": "f1",
    "qed": "f1",
    "fairytaleqa": "bertscore",
    "pubmedqa": "bertscore",
    "dialogsum": "rougeLsum",
}
STUDENTS = ("opt", "pythia", "bloom")


@pytest.fixture(scope="module")
def figures():
    return read_published(EXPERIMENTS / "published/uld.csv")


def value(figures, dataset, teacher, student, fraction, column):
    return figures[dataset, teacher, student, fraction, column, METRICS[dataset]].value


def gain(figures, *place):
    return value(figures, *place, "uld") - value(figures, *place, "teacher_text")


def test_every_table_of_the_paper_is_there(figures):
    # 5 datasets x 2 teachers x 3 students; 3 smaller shares of two; two other sizes on all five;
    # the encoder-decoder student has four pairs, and was never scored undistilled.
    lines = {key[:4] for key in figures}
    assert len(lines) == 30 + 2 * 3 + 2 * 5 + 4
    assert len(figures) == 4 * len(lines) - 4
    assert Counter(key[2] for key in lines) == {
        "opt": 10,
        "pythia": 16,
        "bloom": 10,
        "pythia_160m": 5,
        "pythia_1b": 5,
        "mt0": 4,
    }
    assert all(key[-1] == METRICS[key[0]] for key in figures)


def test_every_figure_names_its_source(figures):
    corrected = [one for one in figures.values() if one.note.startswith("corrected")]
    for one in figures.values():
        released = one.source.startswith("benchmark/results/") and one.source.endswith("shots.json")
        assert released or one in corrected


def test_the_one_wrong_teacher_score_is_corrected_and_says_so(figures):
    for student in STUDENTS:
        found = figures["fairytaleqa", "mistral", student, 100, "teacher_score", "bertscore"]
        assert found.value == 36.02
        assert "41.17" in found.note and "QED" in found.note
    assert sum(one.note.startswith("corrected") for one in figures.values()) == len(STUDENTS)


def test_the_papers_printed_gain_follows(figures):
    squad = [gain(figures, "squad", t, s, 100) for t in ("llama", "mistral") for s in STUDENTS]
    assert sum(squad) / len(squad) == pytest.approx(2.30, abs=0.005)


def test_the_ablations_say_what_the_paper_says_of_them(figures):
    for dataset in ("squad", "fairytaleqa"):
        half = value(figures, dataset, "llama", "pythia", 50, "uld")
        assert half > value(figures, dataset, "llama", "pythia", 100, "teacher_text")
    qed = [gain(figures, "qed", "llama", s, 100) for s in ("pythia_160m", "pythia_1b")]
    assert qed == pytest.approx([6.37, 2.63])
    mt0 = value(figures, "dialogsum", "llama", "mt0", 100, "uld")
    assert 0 < mt0 - value(figures, "dialogsum", "llama", "mt0", 100, "teacher_score") < 0.05


HEADER = "dataset,teacher,student,fraction,column,metric,value,source,note\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a,l,o,100,uld,f1,1.0,,\n", "line 2: 'source' is missing"),
        ("a,l,o,100,uld,,1.0,file,\n", "line 2: 'metric' is missing"),
        ("a,l,o,half,uld,f1,1.0,file,\n", "must be numbers"),
        ("a,l,o,100,uld,f1,high,file,\n", "must be numbers"),
        ("a,l,o,100,uld,f1,nan,file,\n", "must be numbers"),
        ("a,l,o,100,uld,f1,1.0,file,\n" * 2, "line 3: a l o 100 uld f1 stands twice"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_its_line(tmp_path, lines, message):
    path = tmp_path / "p.csv"
    path.write_text(HEADER + lines)
    with pytest.raises(ArtifactError, match=message):
        read_published(path)
