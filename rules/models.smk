rule pretrain:
    input:
        all_data,
    output:
        model=directory("results/{experiment}/models/{model}/model"),
        manifest="results/{experiment}/models/{model}/pretrain.manifest.json",
    log:
        "logs/{experiment}/models/{model}.log",
    params:
        spec=pretrain_spec,
        code=code_digest("kd.models.stage"),
        data="results/{experiment}/data",
        out="results/{experiment}/models/{model}",
        # Not an output: Snakemake deletes the outputs of a failed job, and this must survive it.
        checkpoints="checkpoints/{experiment}/models/{model}",
    message:
        "Train the micro model {wildcards.model}"
    shell:
        "kd pretrain --spec {params.spec:q} --data {params.data} --out {params.out} "
        "--checkpoints {params.checkpoints} > {log} 2>&1"


rule fetch:
    output:
        model=directory("results/{experiment}/hub/{model}/model"),
        manifest="results/{experiment}/hub/{model}/fetch.manifest.json",
    log:
        "logs/{experiment}/hub/{model}.log",
    params:
        spec=fetch_spec,
        code=code_digest("kd.hub.models"),
        out="results/{experiment}/hub/{model}",
    message:
        "Fetch {wildcards.model} from the hub"
    shell:
        "kd fetch --spec {params.spec:q} --out {params.out} > {log} 2>&1"


# All that needs a network: `snakemake sources --config experiment=NAME` on a login node.
rule sources:
    input:
        hub_sources(),
