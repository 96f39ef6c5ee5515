# Every job of every table, derived from an experiment file.
#
#   snakemake results/table2.csv                              the default experiment's table
#   snakemake --config experiment=sample results/table2.csv   another experiment's
#   snakemake -np results/table2.csv                          what would run, and how
from snakemake.utils import min_version

min_version("9.19")  # the first that reads profiles/default/profile.yaml


# Used with `--sdm apptainer` only; containers/README.md says how to build it.
container: "containers/kd.sif"


# A GPU belongs to one job: the limit holds per machine, not for a whole cluster.
resource_scopes:
    gpu="local",


include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/teacher.smk"
include: "rules/distill.smk"
include: "rules/evaluate.smk"
include: "rules/tables.smk"
include: "rules/report.smk"


# On the machine where Snakemake runs: whatever needs the network, and what takes a moment. The
# tracking store has one writer, whose machine need not share locks with any other.
localrules:
    all,
    chart,
    data,
    fetch,
    headline,
    report,
    sources,
    table,
    track,


rule all:
    default_target: True
    input:
        expand("results/{table}.csv", table=SELECTED.tables),
        f"results/{SELECTED.name}/report.html",


onstart:
    look_when_jobs_end()
    take_over_cluster(log)


onsuccess:
    forget_finished()
    runs.forget_run()


onerror:
    forget_finished()
    runs.forget_run()
    repeat_refusals(log)
