"""What the profile for PBS Pro says of a job, with a `qstat` that answers as PBS does."""

import os
import subprocess
from pathlib import Path

import pytest

STATUS = Path(__file__).resolve().parents[2] / "profiles/cluster-generic/status"
ALIVE = "Job Id: 7.server\n    job_state = R"
OVER = "Job Id: 7.server\n    job_state = F\n    Exit_status = "
NO_HISTORY = "qstat: PBS is not configured to maintain job history"


def answer(said: str, status: int) -> str:
    return f"echo '{said}' >&{2 if status else 1}; exit {status}"


@pytest.mark.parametrize(
    ("with_history", "without", "expected"),
    [
        ((ALIVE, 0), (ALIVE, 0), "running"),
        ((f"{OVER}0", 0), ("", 1), "success"),
        ((f"{OVER}1", 0), ("", 1), "failed"),
        ((f"{OVER}-29", 0), ("", 1), "failed"),  # its time limit
        ((NO_HISTORY, 35), (ALIVE, 0), "running"),
        ((NO_HISTORY, 35), ("qstat: Unknown Job Id 7.server", 153), "success"),
        (
            ("qstat: Unknown Job Id 7.server", 153),
            ("qstat: 7.server Job has finished", 35),
            "success",
        ),
        (("Connection refused", 111), ("qstat: cannot connect to server", 255), "running"),
    ],
)
def test_the_state_of_a_job(tmp_path, with_history, without, expected):
    qstat = tmp_path / "qstat"
    qstat.write_text(
        f'#!/bin/sh\n[ "$1" = -x ] && {{ {answer(*with_history)}; }}\n{answer(*without)}\n'
    )
    qstat.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [STATUS, "7.server"], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == [expected]
