"""`kd pin`: branches become commits, and nothing else in the file changes."""

import pytest
from typer.testing import CliRunner

from kd.cli import app
from kd.experiment.loading import find_experiment, load_experiment
from kd.hub.access import HubError
from kd.hub.pinning import floating, pin_file, repositories
from tests.hub.caches import commit_of
from tests.hub.server import Repo

TEACHER, STUDENT, ROWS, COPY, ENCODER = (commit_of(name) for name in "abcde")
FILE = """\
# An experiment of a test.
name: mine
datasets:
  squad:   # read as it is
    source: hub
    repo: org/rows
    revision: main   # the branch
    task: qa
    metric: f1
    hub_splits: {{train: train, validation: validation, test: test}}
  copy: {{source: hub, repo: org/copy, revision: 'refs/convert/parquet', task: qa, metric: f1,
         hub_splits: {{train: train, validation: validation, test: test}}}}
teachers:
  llama: {{source: hub, repo: org/teacher, revision: v1, shots: 1}}  # a tag
students:
  opt: &opt
    source: hub
    repo: org/student
    revision: {student}
    shots: 1
  twin: {{<<: *opt, shots: 2}}
methods:
  teacher_text: {{loss: none}}
training: {{learning_rate: 1.0e-4}}
evaluation:
  metrics: [f1, bertscore]
  bertscore: {{model: org/encoder, revision: main, layer: 1}}
tables:
  table2: {{}}
"""


@pytest.fixture
def file(hub, tmp_path):
    for kind, name, revision, commit in (
        ("models", "org/teacher", "v1", TEACHER),
        ("models", "org/student", "main", STUDENT),
        ("models", "org/encoder", "main", ENCODER),
        ("datasets", "org/rows", "main", ROWS),
        ("datasets", "org/copy", "refs/convert/parquet", COPY),
    ):
        hub.repos[kind, name] = Repo(None, {revision: commit})
    path = tmp_path / "mine.yaml"
    path.write_text(FILE.format(student="main"))
    return path


def test_commits_take_the_place_of_branches_and_tags(file):
    written = pin_file(file)
    assert [(key, commit) for key, _, commit in written] == [
        ("datasets.squad", ROWS),
        ("datasets.copy", COPY),
        ("teachers.llama", TEACHER),
        ("students.opt", STUDENT),
        ("students.twin", STUDENT),
        ("evaluation.bertscore", ENCODER),
    ]
    expected = FILE.format(student=STUDENT)
    expected = expected.replace("revision: main   #", f"revision: {ROWS}   #")
    expected = expected.replace("'refs/convert/parquet'", COPY).replace(": v1", f": {TEACHER}")
    expected = expected.replace("org/encoder, revision: main", f"org/encoder, revision: {ENCODER}")
    assert file.read_text() == expected
    assert all(one.pinned for _, one in repositories(load_experiment(file)))
    assert pin_file(file) == []  # nothing is left to do


def test_check_only_says_what_floats(file):
    before = file.read_text()
    done = CliRunner().invoke(app, ["pin", str(file), "--check"])
    assert done.exit_code == 1 and file.read_text() == before
    assert "mine.yaml: teachers.llama: model 'org/teacher' at 'v1' floats" in done.output
    pin_file(file)
    done = CliRunner().invoke(app, ["pin", str(file), "--check"])
    assert done.exit_code == 0 and "every revision is a commit" in done.output


def test_the_command_says_what_it_wrote(file):
    done = CliRunner().invoke(app, ["pin", str(file)])
    assert done.exit_code == 0
    assert f"mine.yaml: datasets.squad: dataset 'org/rows' at 'main' is {ROWS}" in done.output


def test_an_unknown_repository_leaves_the_file_alone(hub, file):
    del hub.repos["datasets", "org/copy"]
    before = file.read_text()
    with pytest.raises(HubError, match="knows no such repository"):
        pin_file(file)
    assert file.read_text() == before


@pytest.mark.parametrize("silenced", [True, False])
def test_without_the_hub_it_is_one_sentence(hub, file, monkeypatch, silenced):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", silenced)
    hub.close()
    with pytest.raises(HubError, match=r"6 revisions float, .* Run `kd pin` where there is net"):
        pin_file(file)


def test_what_another_file_says_is_pinned_there(hub, file):
    child = file.with_name("child.yaml")
    child.write_text("extends: mine.yaml\nname: child\nteachers: {llama: {revision: v2}}\n")
    hub.repos["models", "org/teacher"] = Repo(None, {"v2": COPY})
    assert {one.file.name for one in floating(child)} == {"child.yaml", "mine.yaml"}
    with pytest.raises(HubError, match=r"takes over from other files float\. Run `kd pin mine`"):
        pin_file(child)
    assert f"revision: {COPY}" in child.read_text()  # its own is pinned all the same
    assert "revision: main" in file.read_text()


def test_a_revision_that_is_not_written_is_asked_for(hub, file):
    text = file.read_text().replace("org/encoder, revision: main,", "org/encoder,")
    file.write_text(text)
    with pytest.raises(HubError, match=f"Write: evaluation.bertscore.revision: {ENCODER}"):
        pin_file(file)


def test_what_floats_in_the_papers_experiment_is_known():
    keys = [one.key for one in floating(find_experiment("paper"))]
    assert keys == ["datasets.qed", "datasets.fairytaleqa", "datasets.dialogsum", "students.mt0"]
