rule chart:
    input:
        table="results/{experiment}/tables/{table}.json",
    output:
        svg=report(
            "results/{experiment}/tables/{table}.svg",
            caption="captions/chart.rst",
            category="{experiment}",
            subcategory="{table}",
            labels={"what": "chart"},
        ),
        png="results/{experiment}/tables/{table}.png",
        charts=directory("results/{experiment}/tables/{table}.charts"),
        manifest="results/{experiment}/tables/{table}.chart.manifest.json",
    log:
        "logs/{experiment}/tables/{table}.chart.log",
    params:
        spec=chart_spec,
        code=code_digest("kd.report.chart"),
        results=experiment_folder,
        out=tables_folder,
    message:
        "Charts of {wildcards.table} of {wildcards.experiment}"
    shell:
        "kd chart --spec {params.spec:q} --results {params.results} --out {params.out} "
        "> {log} 2>&1"


rule report:
    input:
        tables=report_inputs("json"),
        costs=report_inputs("cost.csv"),
        charts=report_inputs("charts"),
    output:
        report(
            "results/{experiment}/report.html",
            caption="captions/report.rst",
            category="{experiment}",
            labels={"what": "report"},
        ),
    log:
        "logs/{experiment}/report.log",
    params:
        spec=report_spec,
        code=report_code(),
        results=experiment_folder,
    message:
        "Report of {wildcards.experiment}"
    shell:
        "kd report --spec {params.spec:q} --results {params.results} --out {output} > {log} 2>&1"
