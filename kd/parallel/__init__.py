"""One student trained by several processes of one machine, through `accelerate`.

`kd.parallel.launch` starts the processes, `kd.parallel.ranks` is what each knows of the others.
"""
