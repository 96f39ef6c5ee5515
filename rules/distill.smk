rule distill:
    input:
        student=student_model,
        data="results/{experiment}/data/{dataset}",
        answers="results/{experiment}/teachers/{teacher}/{dataset}/answers.parquet",
        logits=run_logits,
        teacher=run_teacher,
    output:
        model=directory(
            "results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/model"
        ),
        curve="results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/train.jsonl",
        manifest="results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/distill.manifest.json",
    log:
        "logs/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/distill.log",
    resources:
        gpu=training_gpus,
    params:
        spec=distill_spec,
        code=distill_code,
        options=distill_options,
        out="results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}",
        # Not an output: Snakemake deletes the outputs of a failed job, and this must survive it.
        checkpoints="checkpoints/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}",
    message:
        "Distil {wildcards.student} from {wildcards.teacher} on {wildcards.dataset} "
        "with {wildcards.method} ({wildcards.fraction} %, seed {wildcards.seed})"
    shell:
        "kd distill --spec {params.spec:q} --student {input.student:q} --data {input.data:q} "
        "--answers {input.answers:q} {params.options} --out {params.out} "
        "--checkpoints {params.checkpoints} --gpus {resources.gpu} > {log} 2>&1"
