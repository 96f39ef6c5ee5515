rule predict_student:
    input:
        model="results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/model",
        data="results/{experiment}/data/{test}",
        base=run_base,
    output:
        predictions="results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/eval/{test}/predictions.parquet",
        manifest="results/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/eval/{test}/predict.manifest.json",
    log:
        "logs/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/eval/{test}/predict.log",
    resources:
        gpu=gpus_for,
    params:
        spec=student_predict_spec,
        code=code_digest("kd.evaluation.predict"),
        checkpoints="checkpoints/{experiment}/runs/{dataset}/{teacher}/{student}/{method}/f{fraction}/s{seed}/eval/{test}",
        options=predict_options,
    message:
        "{wildcards.student} ({wildcards.method}, from {wildcards.teacher}) answers {wildcards.test}"
    shell:
        "kd predict --spec {params.spec:q} --model {input.model:q} --data {input.data:q} "
        "{params.options} --out {output.predictions} --checkpoints {params.checkpoints} --gpus {resources.gpu} > {log} 2>&1"


use rule predict_student as predict_native with:
    input:
        model=student_model,
        data="results/{experiment}/data/{test}",
    output:
        predictions="results/{experiment}/native/{dataset}/{student}/eval/{test}/predictions.parquet",
        manifest="results/{experiment}/native/{dataset}/{student}/eval/{test}/predict.manifest.json",
    log:
        "logs/{experiment}/native/{dataset}/{student}/eval/{test}/predict.log",
    params:
        spec=native_predict_spec,
        code=code_digest("kd.evaluation.predict"),
        checkpoints="checkpoints/{experiment}/native/{dataset}/{student}/eval/{test}",
        options="",
    message:
        "{wildcards.student}, not distilled, answers {wildcards.test}"


use rule predict_student as predict_teacher with:
    input:
        model=teacher_model,
        data="results/{experiment}/data/{test}",
    output:
        predictions="results/{experiment}/teachers/{teacher}/{dataset}/eval/{test}/predictions.parquet",
        manifest="results/{experiment}/teachers/{teacher}/{dataset}/eval/{test}/predict.manifest.json",
    log:
        "logs/{experiment}/teachers/{teacher}/{dataset}/eval/{test}/predict.log",
    params:
        spec=teacher_predict_spec,
        code=code_digest("kd.evaluation.predict"),
        checkpoints="checkpoints/{experiment}/teachers/{teacher}/{dataset}/eval/{test}",
        options="",
    message:
        "{wildcards.teacher} answers the test rows of {wildcards.test}"


rule score:
    input:
        predictions="results/{experiment}/{subject}/eval/{test}/predictions.parquet",
        encoder=bertscore_encoder,
    output:
        scores="results/{experiment}/{subject}/eval/{test}/scores.json",
        manifest="results/{experiment}/{subject}/eval/{test}/score.manifest.json",
    log:
        "logs/{experiment}/{subject}/eval/{test}/score.log",
    resources:
        gpu=scoring_gpus,
    params:
        spec=score_spec,
        code=code_digest("kd.evaluation.score"),
    message:
        "Score {wildcards.subject} on {wildcards.test}"
    shell:
        "kd score --spec {params.spec:q} --predictions {input.predictions:q} --out {output.scores} "
        "--gpus {resources.gpu} > {log} 2>&1"
