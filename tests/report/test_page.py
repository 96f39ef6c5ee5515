"""The report: one page that stands alone, and in which every number leads back to the rows."""

import json
import re
from html.parser import HTMLParser

import pytest

from kd.errors import ArtifactError
from kd.experiment.loading import load_experiment
from kd.experiment.stages import ChartSpec, ReportSpec, report_spec
from kd.provenance.canonical import digest
from kd.provenance.manifest import path_digest
from kd.report.chart import write_charts
from kd.report.compute import duration, stage_costs, training_cpu_seconds
from kd.report.content import Verdict
from kd.report.page import render_report
from kd.report.results_page import render_results
from kd.report.svg import inline_svg, unsafe_part
from kd.report.tables import MOST_CHAINS, MOST_LINES, chained_lines
from kd.report.words import basis_text, count_text, mean_text, unit_sentence
from tests.report.conftest import CLAIM, content, gain, one_line, rewrite_table, row, table

SPEC = ReportSpec(
    experiment="tiny",
    description="made by <b>hand</b>",
    tables=["table2"],
    deviations=["Nothing here was trained."],
)


class Page(HTMLParser):
    """The ids, links and texts of a page; tags must match."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.external, self.open, self.text = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        self.external += [
            found[name] for name in ("src", "xlink:href", "href") if name in found and tag != "a"
        ]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "br", "img", "link"):
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(made, tmp_path_factory):
    world = made.copy(tmp_path_factory.mktemp("page") / "world")
    write_charts(ChartSpec(table="table2"), world.results, world.table.parent)
    return render_report(SPEC, world.results), world


def test_it_needs_nothing_else(page):
    text, world = page
    found = Page(text)
    assert all(link.startswith("#") for link in found.external)
    assert set(re.findall(r"https?://[^\"' <]*", text)) <= {"http://www.w3.org/1999/xlink"}
    assert "@import" not in text and str(world.root) not in text


def test_every_link_leads_somewhere(page):
    text, world = page
    found = Page(text)
    assert len(found.ids) == len(set(found.ids))
    for link in found.links:
        if link.startswith("#"):
            assert link[1:] in found.ids, link
        else:
            assert (world.results / link).is_file(), link


def test_every_number_opens_its_chain_down_to_the_rows(page):
    text, _ = page
    cells = re.findall(r"<details class='cell'>.*?</details>", text, re.DOTALL)
    assert len(cells) == 5
    chain = re.findall(r">(\w+): ", cells[3])
    assert chain[0] == "score" and chain[-1] == "data"
    assert set(chain) == {"score", "predict", "distill", "extract", "answer", "pretrain", "data"}
    # A prompt, with the context of its row, the prediction and the reference.
    assert re.search(r"<details><summary>Question: .*?Context: .*?Answer:", text, re.DOTALL)
    assert "not the recorded prompt" not in text


def test_what_it_says(page):
    text = " ".join("".join(Page(page[0]).text).split())
    assert "Mean gain of uld over teacher text: +25.00 points; better in 1 of 1 line" in text
    assert "Of 1 claim 1 is undecided" in text
    assert "Undecided. Students learn more from ULD. +25.00 points [-1.50, +51.50]" in text
    assert "75.00 ± 2.00" in text and "+25.00 [+24.00, +26.00]" in text
    assert "published 74.00, ours +1.00: within what another run would give" in text
    assert "Nothing here was trained." in text
    assert "Made by <b>hand</b>." in text and "Made by <b>hand</b>" not in page[0]
    # Six jobs of five seconds.
    assert re.search(r"distill</td><td[^>]*>6</td><td[^>]*>30\.0 s<", page[0])


def test_it_reads_without_charts(world):
    assert "<figure>" not in render_report(SPEC, world.results)


def test_a_missing_table_is_named(world):
    world.table.with_suffix(".json").unlink()
    with pytest.raises(ArtifactError, match=r"table2\.json: no such table"):
        render_report(SPEC, world.results)


def test_a_table_of_another_version_is_named(world):
    rewrite_table(world, content([one_line()]) | {"schema_version": 1})
    with pytest.raises(ArtifactError, match="schema 1, expected 2"):
        render_report(SPEC, world.results)


def test_a_table_without_lines_is_refused(world):
    rewrite_table(world, content([]))
    with pytest.raises(ArtifactError, match="'rows'"):
        render_report(SPEC, world.results)


def test_an_altered_table_is_refused(world):
    file = world.table.with_suffix(".json")
    file.write_text(file.read_text().replace("25.0", "52.0"))
    with pytest.raises(ArtifactError, match=r"table2\.json: changed since stage 'table' wrote it"):
        render_report(SPEC, world.results)
    with pytest.raises(ArtifactError, match=r"table2\.json: changed since stage 'table' wrote it"):
        render_results(load_experiment(world.file), world.results)


def draw(world):
    write_charts(ChartSpec(table="table2"), world.results, world.table.parent)
    return world.table.parent / "table2.charts" / "gains.svg"


def test_an_altered_chart_is_refused(world):
    file = draw(world)
    file.write_text(file.read_text().replace("</svg>", "<script>alert(1)</script></svg>"))
    with pytest.raises(ArtifactError, match=r"table2\.charts: changed since stage 'chart'"):
        render_report(SPEC, world.results)


def test_charts_of_another_table_are_refused(world):
    draw(world)
    found = content([one_line()])
    found["rows"][0]["cells"]["uld"]["value"] = 76.0
    rewrite_table(world, found)
    with pytest.raises(ArtifactError, match=r"drawn of another table2\.json. Delete it and run"):
        render_report(SPEC, world.results)


def test_a_chart_with_a_script_is_refused_even_with_a_manifest(world):
    file = draw(world)
    file.write_text(file.read_text().replace("</svg>", "<script>alert(1)</script></svg>"))
    manifest = world.table.parent / "table2.chart.manifest.json"
    recorded = json.loads(manifest.read_text(encoding="utf-8"))
    recorded["hashed"]["outputs"]["table2.charts"] = path_digest(file.parent)
    recorded["identity"] = digest(recorded["hashed"])
    manifest.write_text(json.dumps(recorded), encoding="utf-8")
    with pytest.raises(ArtifactError, match="holds an element <script>"):
        render_report(SPEC, world.results)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("<script>x</script>", "<script>"),
        ("<SCRIPT>x</SCRIPT>", "<SCRIPT>"),
        ("<s:script xmlns:s='http://www.w3.org/2000/svg'>x</s:script>", "<script>"),
        ("<foreignObject/>", "<foreignObject>"),
        ("<animate attributeName='href'/>", "<animate>"),
        ("<iframe xmlns='http://www.w3.org/1999/xhtml'/>", "<iframe>"),
        ("<a href='x'/>", "<a>"),
        ("<g onclick='x'/>", "onclick"),
        ("<g OnLoad = 'x'/>", "OnLoad"),
        ("<use xlink:href='http://x/y#z'/>", "a link to http://x/y#z"),
        ("<image href='&#106;avascript:x'/>", "a link to javascript:x"),
        ("<image href='data:text/html,x'/>", "a link to data:text/html,x"),
        ("<g style='fill:url(http://x)'/>", "loads something"),
        ("<style>@import 'x'</style>", "a style that loads"),
        ("<g>", "no svg"),
        # Comments, instructions and raw text that end earlier for HTML than for XML.
        ("<!--><script>x</script>-->", "could hide a tag"),
        ("<!-- --!><script>x</script>-->", "could hide a tag"),
        ("<?x ><script>x</script>?>", "could hide a tag"),
        ("<title><![CDATA[><script>x</script>]]></title>", "could hide a tag"),
    ],
)
def test_what_no_chart_holds_is_found(body, found):
    names = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'"
    assert found in (unsafe_part(f"<svg {names}>{body}</svg>") or "")


def test_a_comment_before_the_chart_may_not_hold_another():
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><!-- made by a library --></svg>"
    assert unsafe_part(f"<?xml version='1.0'?>{svg}") is None
    assert unsafe_part(f"<!-- <svg viewBox='0 0 1 1'> -->{svg}") is not None


def test_five_thousand_runs_stay_readable(world):
    scores = {"teacher_text": 1.0, "uld": 2.0}
    rows = [row(scores, {"gain_uld": gain(1.0)}, dataset=f"d{n}") for n in range(2500)]
    for n, line in enumerate(rows):
        for name in scores:
            path = f"runs/d{n}/llama/opt/{name}/f100/s0/eval/d{n}/scores.json"
            line["cells"][name]["scores"] = {path: None}
    rewrite_table(world, content(rows))
    text = render_report(SPEC, world.results)
    assert len(text) < 2_000_000
    assert text.count("<details class='cell'>") == 2 * MOST_CHAINS
    assert f"<summary>{MOST_LINES} lines</summary>" in text
    assert "2200 more lines in tables/table2.csv" in text


def test_chains_are_shared_out_among_tables():
    small, large = (table([row({}, {})] * count) for count in (10, 1000))
    assert chained_lines(small, [small]) == 10
    shares = [chained_lines(one, [small, large]) for one in (small, large)]
    assert 0 < sum(shares) <= MOST_CHAINS and min(shares) > 0


def test_deviations_are_keys_of_the_experiment(made):
    experiment = load_experiment(made.file, {"deviations": ["One."]})
    assert report_spec(experiment).deviations == ["One."]


def test_ids_of_charts_do_not_clash():
    text = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="9pt" viewBox="0 0 90 20">\n'
        '<metadata>x</metadata><g id="a" clip-path="url(#p)"/><use xlink:href="#a"/></svg>'
    )
    found = inline_svg(text, "t-", "a chart")
    assert '<g id="t-a" clip-path="url(#t-p)"/><use xlink:href="#t-a"/></svg>' in found
    assert "metadata" not in found and 'aria-label="a chart"' in found


def test_costs(made, tmp_path):
    from kd.audit.chain import Chain

    chain = Chain(made.results)
    costs = {
        one.stage: one for one in stage_costs(chain.closure([chain.artifact("tables", "table2")]))
    }
    assert costs["distill"].jobs == 6 and costs["distill"].longest == 5.0
    assert costs["all"].jobs == sum(one.jobs for name, one in costs.items() if name != "all")
    file = tmp_path / "a.cost.csv"
    file.write_text("dataset,seed,steps,cpu_seconds_per_step\nsquad,0,10,0.5\nsquad,1,10,1\n")
    assert training_cpu_seconds([file, file]) == 15.0
    assert training_cpu_seconds([tmp_path / "none.csv"]) is None
    assert [duration(x) for x in (1.0, 90.0, 7200.0)] == ["1.0 s", "1.5 min", "2.0 h"]


def test_a_mean_is_of_the_method_that_the_table_says():
    mean = {"column": "gain", "value": -5.9, "better": 1, "lines": 4}
    columns = {"axes": ["dataset", "method"], "scores": ["score"], "gains": {"gain": "score"}}
    means = [mean | {"method": name} for name in ("ot_embedding", "uld")]
    found = table([row({}, {})], columns=columns, means=means)
    sentences = [mean_text(found, one) for one in found.means]
    assert sentences[0].startswith("Mean gain of ot embedding over teacher text: -5.90 points")
    assert sentences[1].startswith("Mean gain of uld over teacher text: -5.90 points")


def test_one_seed_and_values_of_whole_test_sets_are_said():
    rows = [
        row({"teacher_text": 1.0, "uld": 2.0}, {"gain_uld": gain(1.0)}, metric=name)
        for name in ("exact_match", "ece", "confidence")
    ]
    one = table(rows, seeds=[0])
    assert "nothing of training again with another seed" in basis_text(one)
    assert "by ece: at one seed it has no interval" in basis_text(one)
    assert "by ece: its interval is over seeds only" in basis_text(table(rows))
    units = unit_sentence(one)
    assert "Of ece less is better: a gain is a decrease." in units
    assert "More confidence is neither better nor worse" in units
    verdicts = [Verdict.model_validate(CLAIM)]
    assert count_text(verdicts, 2, one_seed=True) == (
        "Of 3 claims 1 is undecided and 2 were not run; with one seed, over test examples only"
    )
