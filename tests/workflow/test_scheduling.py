"""Snakemake's own work does not grow with the jobs that have ended."""

from tests.workflow.conftest import Checkout, copy_checkout

TARGETS = [
    f"results/micro/data/{name}"
    for name in ("squad", "qed", "fairytaleqa", "pubmedqa", "dialogsum")
]


def looks(checkout: Checkout, *options: str) -> int:
    """How often Snakemake looks for jobs to run, one at a time, while another one is ready."""
    done = checkout.run(
        *("snakemake", *TARGETS, "--cores", "1", "--verbose", "--forceall"),
        *("--config", "experiment=micro", *options),
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.count("Resources before job selection")


def test_snakemake_looks_at_its_schedule_when_jobs_end_and_not_every_second(tmp_path):
    checkout = copy_checkout(tmp_path / "kd")
    seldom = looks(checkout)
    assert seldom < looks(checkout, "--no-hooks")  # as it is without what is done at the start
