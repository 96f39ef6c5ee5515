rule data:
    input:
        source_files,
    output:
        directory("results/{experiment}/data/{dataset}"),
    log:
        "logs/{experiment}/data/{dataset}.log",
    params:
        spec=data_spec,
        root=data_root,
        code=code_digest("kd.data.sources"),
    message:
        "Rows of {wildcards.dataset}"
    shell:
        "kd data --spec {params.spec:q} --root {params.root:q} --out {output} > {log} 2>&1"
