"""What a target would take, before anything runs: jobs, time and what limits it.

`jobs` are those behind a target, as Snakemake plans them; `work` is how much each has to do, from
its specification alone; `history` is how long such work took, here or on the reference machine;
`estimate` goes from the one to the other; `schedule` says how long all jobs take on some cores.
"""
