rule table:
    input:
        scores=table_scores,
        published=published_file,
    output:
        csv=report(
            "results/{experiment}/tables/{table}.csv",
            caption="captions/table.rst",
            category="{experiment}",
            subcategory="{table}",
            labels={"what": "table"},
        ),
        long="results/{experiment}/tables/{table}.long.csv",
        md="results/{experiment}/tables/{table}.md",
        json="results/{experiment}/tables/{table}.json",
        tex="results/{experiment}/tables/{table}.tex",
        cost="results/{experiment}/tables/{table}.cost.csv",
        manifest="results/{experiment}/tables/{table}.manifest.json",
    log:
        "logs/{experiment}/tables/{table}.log",
    params:
        spec=table_spec,
        code=code_digest("kd.tables.assembly"),
        published=published_option,
        results=experiment_folder,
        out="results/{experiment}/tables",
    message:
        "Table {wildcards.table} of {wildcards.experiment}"
    shell:
        "kd table --spec {params.spec:q} --results {params.results} --out {params.out} "
        "{params.published} > {log} 2>&1"


rule track:
    input:
        table="results/{experiment}/tables/{table}.json",
    output:
        "results/{experiment}/tables/{table}.tracked.json",
    log:
        "logs/{experiment}/tables/{table}.track.log",
    params:
        results=experiment_folder,
        code=code_digest("kd.tracking"),
    message:
        "Project the runs of {wildcards.table} into MLflow"
    shell:
        "kd track --table {input.table:q} --results {params.results} --out {output} > {log} 2>&1"


rule headline:
    input:
        csv=selected_table("csv"),
        long=selected_table("long.csv"),
        md=selected_table("md"),
        json=selected_table("json"),
        tex=selected_table("tex"),
        tracked=selected_table("tracked.json"),
    output:
        csv="results/{table}.csv",
        long="results/{table}.long.csv",
        md="results/{table}.md",
        json="results/{table}.json",
        tex="results/{table}.tex",
    log:
        "logs/{table}.log",
    message:
        "The selected experiment's {wildcards.table}"
    shell:
        "cp {input.csv} {output.csv} && cp {input.long} {output.long} && cp {input.md} {output.md} "
        "&& cp {input.json} {output.json} && cp {input.tex} {output.tex} "
        "&& kd show {output.csv} 2> {log}"
