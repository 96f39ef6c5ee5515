rule answer:
    input:
        model=teacher_model,
        data="results/{experiment}/data/{dataset}",
    output:
        answers="results/{experiment}/teachers/{teacher}/{dataset}/answers.parquet",
        manifest="results/{experiment}/teachers/{teacher}/{dataset}/answer.manifest.json",
    log:
        "logs/{experiment}/teachers/{teacher}/{dataset}/answer.log",
    resources:
        gpu=gpus_for,
    params:
        spec=answer_spec,
        code=code_digest("kd.teacher.answers"),
        checkpoints="checkpoints/{experiment}/teachers/{teacher}/{dataset}/answers",
    message:
        "{wildcards.teacher} answers {wildcards.dataset}"
    shell:
        "kd answer --spec {params.spec:q} --model {input.model:q} --data {input.data:q} "
        "--out {output.answers} --checkpoints {params.checkpoints} --gpus {resources.gpu} > {log} 2>&1"


rule extract:
    input:
        model=teacher_model,
        answers="results/{experiment}/teachers/{teacher}/{dataset}/answers.parquet",
    output:
        logits=directory("results/{experiment}/teachers/{teacher}/{dataset}/logits"),
        manifest="results/{experiment}/teachers/{teacher}/{dataset}/extract.manifest.json",
    log:
        "logs/{experiment}/teachers/{teacher}/{dataset}/extract.log",
    resources:
        gpu=gpus_for,
    params:
        spec=extract_spec,
        code=code_digest("kd.teacher.extraction"),
        # Beside the answers' or, of a variant, in a folder of its name: as the output is.
        checkpoints=lambda _, output: Path(
            "checkpoints", *Path(output.logits).parts[1:]
        ),
    message:
        "Logits of {wildcards.teacher} on {wildcards.dataset}"
    shell:
        "kd extract --spec {params.spec:q} --model {input.model:q} --answers {input.answers:q} "
        "--out {output.logits} --checkpoints {params.checkpoints} --gpus {resources.gpu} > {log} 2>&1"


# Variants of the logits that an experiment names; without a name they lie beside the answers.
use rule extract as extract_variant with:
    output:
        logits=directory(
            "results/{experiment}/teachers/{teacher}/{dataset}/{variant}/logits"
        ),
        manifest="results/{experiment}/teachers/{teacher}/{dataset}/{variant}/extract.manifest.json",
    log:
        "logs/{experiment}/teachers/{teacher}/{dataset}/{variant}/extract.log",
    message:
        "Logits of {wildcards.teacher} on {wildcards.dataset}, {wildcards.variant}"
