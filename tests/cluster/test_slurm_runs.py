"""Which jobs are orphans, and what is done about them, with commands that stand for SLURM's."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from kd.cluster import runs, slurm

SACCT = Path(__file__).resolve().parents[2] / "profiles/slurm/without-accounting/sacct"
DEAD = 2**22 + 1  # above the largest process id of Linux


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """An empty folder to work in, and one on the PATH for commands; returns how to write one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, body: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)

    return write


def note(run_id: str, pid: int, *, host: str = "", started: str = "1") -> Path:
    file = runs.FOLDER / f"{run_id}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {"host": host or socket.gethostname(), "pid": pid, "started": started}
    file.write_text(json.dumps(content))
    return file


def queue(write, *lines: str) -> None:
    """`squeue` lists these jobs until `scancel` is told their numbers."""
    Path("queue").write_text("".join(f"{line}\n" for line in lines))
    write("squeue", "cat queue")
    write("scancel", 'for job; do sed -i "/^$job|/d" queue; echo $job >>cancelled; done')


def cancelled() -> list[str]:
    return Path("cancelled").read_text().split() if Path("cancelled").exists() else []


def test_a_dead_run_s_jobs_are_cancelled_and_named(commands, capsys):
    queue(commands, "7|gone|rule_distill", "8|gone|rule_distill", "9|other|rule_distill")
    file = note("gone", DEAD)
    runs.cancel_orphans()
    assert cancelled() == ["7", "8"]
    assert "cancelling jobs 7, 8, left behind" in capsys.readouterr().err
    assert not file.exists()


def test_a_living_run_keeps_its_jobs(commands, tmp_path):
    log = tmp_path / "snakemake.log"
    log.write_text("Assuming unrestricted shared filesystem usage.\nSLURM run ID: mine\n")
    runs.note_run([str(log)])
    queue(commands, "7|mine|rule_distill")
    runs.cancel_orphans()
    assert cancelled() == []
    runs.forget_run()
    assert not list(runs.FOLDER.glob("*.json"))


def test_a_process_that_reuses_the_number_is_another(commands):
    queue(commands, "7|gone|rule_distill")
    note("gone", os.getpid(), started="0")
    runs.cancel_orphans()
    assert cancelled() == ["7"]


def test_jobs_submitted_elsewhere_are_refused_not_cancelled(commands):
    queue(commands, "7|far|rule_distill")
    note("far", DEAD, host="login2")
    with pytest.raises(slurm.SlurmError, match=r"login2.* scancel 7"):
        runs.cancel_orphans()
    assert cancelled() == []


def test_a_run_elsewhere_without_jobs_may_live_and_stays_noted(commands):
    queue(commands)
    file = note("far", DEAD, host="login2")
    runs.cancel_orphans()
    assert file.exists()


def test_without_a_dead_run_slurm_is_not_asked(commands):
    commands("squeue", "touch asked")
    runs.cancel_orphans()
    assert not Path("asked").exists()


def test_a_damaged_note_still_names_its_run(commands):
    queue(commands, "7|gone|rule_distill")
    note("gone", DEAD).write_text("{")
    runs.cancel_orphans()
    assert cancelled() == ["7"]


def test_where_there_is_no_slurm_a_left_note_is_a_warning(commands, monkeypatch, capsys):
    file = note("gone", DEAD)
    monkeypatch.setenv("PATH", "")
    runs.cancel_orphans()
    assert file.exists()
    assert f"delete {runs.FOLDER}" in capsys.readouterr().err


def test_a_silent_controller_is_a_refusal(commands):
    note("gone", DEAD)
    commands(
        "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    )
    with pytest.raises(slurm.SlurmError, match="Unable to contact slurm controller"):
        runs.cancel_orphans()
    assert list(runs.FOLDER.glob("*.json"))  # found again by the next one


def test_a_log_without_a_run_id_is_a_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_PATIENCE", 0)
    with pytest.raises(slurm.SlurmError, match="no SLURM run ID"):
        runs.note_run([str(tmp_path / "none.log")])


@pytest.mark.parametrize(
    ("value", "answer"),
    [("accounting_storage/none", False), ("(null)", False), ("accounting_storage/slurmdbd", True)],
)
def test_accounting_is_read_from_the_configuration(commands, value, answer):
    commands("scontrol", f"echo 'AccountingStorageType   = {value}'")
    assert slurm.has_accounting() is answer
    slurm.prefer_commands_of(SACCT.parents[1])
    assert (str(SACCT.parent) in os.environ["PATH"]) is not answer


def sacct() -> str:
    command = ["sh", str(SACCT), "-X", "--parsable2", "--name", "run"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_stand_in_for_sacct_answers_from_squeue(commands):
    commands("squeue", "printf '1|RUNNING\\n2|PENDING\\n'")
    assert sacct() == "1|RUNNING\n2|PENDING\n"
    commands("squeue", "printf '2|RUNNING\\n'")  # 1 ended so long ago that it is forgotten
    assert sacct() == "2|RUNNING\n1|UNKNOWN\n"
    commands("squeue", "exit 0")
    assert sorted(sacct().split()) == ["1|UNKNOWN", "2|UNKNOWN"]


def test_the_stand_in_waits_where_the_controller_is_away(commands):
    commands("squeue", "printf '1|RUNNING\\n'")
    sacct()
    commands("squeue", "exit 1")
    assert sacct() == ""  # not UNKNOWN: the job may well run
    commands("squeue", "printf '1|COMPLETED\\n'")
    assert sacct() == "1|COMPLETED\n"
