"""Profiles name what exists: Snakemake ignores a misspelt rule or resource without a word."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*/profile.yaml"))
RULES = "\n".join(file.read_text() for file in (ROOT / "rules").glob("*.smk"))
NAMES = set(re.findall(r"^(?:use )?rule (?:\w+ as )?(\w+)", RULES, re.MULTILINE))
BLOCK = (ROOT / "Snakefile").read_text().partition("\nlocalrules:\n")[2].partition("\n\n")[0]
LOCAL = set(re.findall(r"\w+", BLOCK))


def profile(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.parent.name)
def test_a_profile_names_rules_that_exist(path):
    content = profile(path)
    assert set(content.get("set-resources", {})) <= NAMES
    assert set(content.get("groups", {})) <= NAMES
    assert set(content.get("group-components", {})) <= set(content.get("groups", {}).values())


def test_every_rule_that_runs_on_a_node_has_a_runtime():
    content = profile(ROOT / "profiles/slurm/profile.yaml")
    limited = {rule for rule, given in content["set-resources"].items() if "runtime" in given}
    assert limited == NAMES - LOCAL
    assert {"data", "track"} <= LOCAL  # the network, and the tracking store's one writer


def test_some_partition_takes_every_job_with_and_without_a_gpu():
    content = profile(ROOT / "profiles/slurm/profile.yaml")
    partitions = profile(ROOT / "profiles/slurm/partitions.yaml")["partitions"].values()
    attempts = content["retries"] + 1
    for rule, given in content["set-resources"].items():
        memory = str(given.get("mem_mb", content["default-resources"]["mem_mb"]))
        need = int(eval(memory, {"attempt": attempts}))
        for gpu in (0, 1):
            fits = [
                partition
                for partition in partitions
                if partition.get("max_gpu", 0) >= gpu and partition["max_mem_mb"] >= need
            ]
            assert fits, rule


def test_no_rule_retries_by_itself():
    """A rule's `retries` would also apply inside each job of a cluster, and multiply."""
    assert not re.search(r"^\s+retries:", RULES, re.MULTILINE)


def test_kubernetes_is_told_the_maker_of_its_gpus_and_to_limit_jobs_to_what_they_ask_for():
    """Its executor refuses a job with `gpu`, even of 0, otherwise; and Kubernetes one of 1."""
    asked = profile(ROOT / "profiles/kubernetes/profile.yaml")["default-resources"]
    assert asked["gpu_manufacturer"] in ("nvidia", "amd")
    assert asked["scale"] == 0


@pytest.mark.parametrize("name", ["Dockerfile", "kd.def"])
def test_the_container_starts_from_an_image_by_its_digest(name):
    start = r"(?m)^from:? (?:[\w.:-]+)@(sha256:[0-9a-f]{64})$"
    found = re.findall(start, (ROOT / "containers" / name).read_text(), re.IGNORECASE)
    other = re.findall(start, (ROOT / "containers/kd.def").read_text(), re.IGNORECASE)
    assert len(found) == 1 and found == other
