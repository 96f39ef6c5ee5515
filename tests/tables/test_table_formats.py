"""One table in five formats: they agree, they say what intervals cover, and bytes repeat."""

import csv
import io
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kd.errors import ArtifactError
from kd.experiment.spec_files import parse_spec
from kd.experiment.stages import TableSpec
from kd.provenance.canonical import canonical_json
from kd.provenance.manifest import read_manifest
from kd.tables.as_csv import render_csv
from kd.tables.as_json import render_json
from kd.tables.assembly import write_table
from kd.tables.content import build_content
from kd.tables.latex import escaped, render_latex
from kd.tables.markdown import render_markdown
from kd.tables.show import print_table
from kd.tables.statistics import holm, seeded
from tests.tables.scored import named_claim, table_spec, write_results, write_scores

EXAMPLES = 40
FORMATS = ("csv", "long.csv", "json", "md", "tex")


def scorer(place, column, seed):
    """ULD is 20 points better than teacher text on `a`, and equal to it on `b`."""
    draw = seeded((place.dataset, column, str(seed)))
    level = {"teacher_score": 80, "native": 10, "uld": 60, "twin": 40}.get(column, 40)
    level = 40 if place.dataset == "b" and column == "uld" else level
    return (level + 15 * draw.standard_normal(EXAMPLES)).tolist()


def made(spec, folder, published=None, score=scorer):
    write_results(spec, folder, score)
    write_table(spec, folder, folder / "tables", published)
    return folder / "tables"


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def number(text):
    return float(text) if text else None


@pytest.fixture(scope="module")
def spec():
    claims = [
        named_claim("better"),
        named_claim("worse", left={"method": "teacher_text"}, right={"method": "uld"}),
        named_claim("open", where={"dataset": "b"}),
    ]
    return table_spec(claims=claims)


@pytest.fixture(scope="module")
def tables(spec, tmp_path_factory):
    return made(spec, tmp_path_factory.mktemp("results"))


def test_csv_and_json_hold_the_same_numbers(tables):
    rows = read_csv(tables / "t.csv")
    content = json.loads((tables / "t.json").read_text())
    assert content["schema_version"] == 2 and len(rows) == len(content["rows"]) == 2
    for row, line in zip(rows, content["rows"], strict=True):
        for column in content["columns"]["scores"]:
            cell = line["cells"][column]
            assert number(row[column]) == cell["value"]
            if column in ("teacher_text", "uld"):
                assert number(row[f"{column}_sd"]) == cell["sd"] > 0
                assert int(row[f"{column}_n"]) == cell["n"] == len(cell["per_seed"]) == 3
        for column in content["columns"]["gains"]:
            cell = line["cells"][column]
            names = {"lo": "low", "hi": "high", "p": "p", "p_holm": "p_holm", "sd": "sd", "n": "n"}
            assert number(row[column]) == cell["value"]
            for ending, name in names.items():
                assert number(row[f"{column}_{ending}"]) == cell[name] is not None
            assert cell["low"] < cell["value"] < cell["high"] and cell["p"] <= cell["p_holm"]
            assert cell["over"] == "examples and seeds"


def test_the_long_csv_holds_every_seed_and_the_identity_of_its_scores(tables):
    content = json.loads((tables / "t.json").read_text())
    found = {
        (row["dataset"], row["column"], row["seed"]): (number(row["value"]), row["scores"])
        for row in read_csv(tables / "t.long.csv")
    }
    assert len(found) == 2 * (2 + 2 * 3)
    for line in content["rows"]:
        for column in content["columns"]["scores"]:
            cell = line["cells"][column]
            values = cell["per_seed"] or {"": cell["value"]}
            for (seed, value), (path, identity) in zip(
                values.items(), cell["scores"].items(), strict=True
            ):
                assert found[line["dataset"], column, seed] == (value, identity)
                manifest = (tables.parent / path).with_name("score.manifest.json")
                assert read_manifest(manifest)["identity"] == identity


def test_md_and_tex_show_what_the_json_says(tables):
    content = json.loads((tables / "t.json").read_text())
    md, tex = ((tables / f"t.{end}").read_text() for end in ("md", "tex"))
    for line in content["rows"]:
        gain, uld = line["cells"]["gain_uld"], line["cells"]["uld"]
        text = f"{gain['value']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"
        marked = gain["p_holm"] <= 0.05
        assert marked == (line["dataset"] == "a"), "the case must tell marked from unmarked"
        assert f"| {text}\\*" in md if marked else f"| {text} " in md
        assert f"{{{text}$^{{*}}$}}" in tex if marked else f"{{{text}}}" in tex
        assert f"{uld['value']:.2f} ± {uld['sd']:.2f}" in md
        assert f"{uld['value']:.2f} $\\pm$ {uld['sd']:.2f}" in tex
    (mean,) = content["means"]
    interval = f"{mean['value']:+.2f} [{mean['low']:+.2f}, {mean['high']:+.2f}]"
    assert f"{interval} points on average, better in" in md and interval in tex
    assert mean["value"] == pytest.approx(
        sum(line["cells"]["gain_uld"]["value"] for line in content["rows"]) / 2
    )


def test_claims_stand_below_with_their_verdicts(tables):
    content = json.loads((tables / "t.json").read_text())
    outcomes = {claim["name"]: claim["outcome"] for claim in content["claims"]}
    assert outcomes == {"better": "holds", "worse": "does not hold", "open": "undecided"}
    assert content["claims"][2]["definition"]["where"] == {"dataset": ["b"]}
    md = (tables / "t.md").read_text()
    for claim in content["claims"]:
        assert re.search(rf"\| {claim['name']} +\|.*\| {claim['outcome']} +\|", md)
        assert claim["sentence"] in md


def test_several_seeds_are_named_in_md_and_tex(tables):
    for end in ("md", "tex"):
        text = (tables / f"t.{end}").read_text()
        assert "standard deviation over 3 seeds" in text
        assert "over test examples only" not in text


def test_one_seed_says_that_the_intervals_are_over_examples_only(tmp_path):
    folder = made(table_spec(seeds=[0]), tmp_path)
    for end in ("md", "tex"):
        text = (folder / f"t.{end}").read_text()
        assert "one seed" in text
        assert "are over test examples only" in text
        assert " ± " not in text
    content = json.loads((folder / "t.json").read_text())
    gains = [line["cells"]["gain_uld"] for line in content["rows"]]
    assert {gain["over"] for gain in gains} == {"examples"}
    assert all(gain["sd"] is None and gain["n"] == 1 and gain["low"] is not None for gain in gains)


def test_holms_correction_is_over_all_gains_of_the_table(tmp_path):
    spec = table_spec(methods=["teacher_text", "uld", "twin"])
    content = json.loads((made(spec, tmp_path) / "t.json").read_text())
    cells = [
        line["cells"][column] for line in content["rows"] for column in ("gain_uld", "gain_twin")
    ]
    assert [cell["p_holm"] for cell in cells] == pytest.approx(holm([c["p"] for c in cells]))
    assert any(cell["p_holm"] > cell["p"] for cell in cells)


def test_the_bytes_do_not_depend_on_the_order_of_keys_or_of_making(spec, tables, tmp_path):
    again = parse_spec(TableSpec, canonical_json(spec.model_dump(mode="json")))
    write_results(spec, tmp_path, scorer)
    other = table_spec(name="other", seeds=[2, 0, 1])
    write_table(other, tmp_path, tmp_path / "tables")
    write_table(again, tmp_path, tmp_path / "tables")
    for end in FORMATS:
        assert (tmp_path / f"tables/t.{end}").read_bytes() == (tables / f"t.{end}").read_bytes()


def test_a_table_of_which_lines_are_left_out_keeps_their_intervals(spec, tables, tmp_path):
    """Intervals come from names, not from a generator that earlier lines have used up."""
    content = json.loads(
        (made(table_spec(rows=spec.rows[1:], seeds=[0]), tmp_path) / "t.json").read_text()
    )
    full = json.loads((made(table_spec(seeds=[0]), tmp_path / "full") / "t.json").read_text())
    alone, beside = content["rows"][0]["cells"]["gain_uld"], full["rows"][1]["cells"]["gain_uld"]
    assert (alone["low"], alone["high"], alone["p"]) == (
        beside["low"],
        beside["high"],
        beside["p"],
    )


def test_a_missing_score_leaves_its_gains_out_of_the_statistics(tmp_path):
    def partly(place, column, seed):
        missing = place.dataset == "b" and column == "uld" and seed == 1
        return None if missing else scorer(place, column, seed)

    folder = made(table_spec(claims=[named_claim()]), tmp_path, score=partly)
    content = json.loads((folder / "t.json").read_text())
    first, second = (line["cells"]["gain_uld"] for line in content["rows"])
    assert first["p"] == first["p_holm"] and first["low"] > 0
    assert second["value"] is None and second["p"] is None
    assert second["unavailable"] == "no encoder"
    assert "over the 1 gain of" in (folder / "t.md").read_text()
    (mean,) = content["means"]
    assert mean["lines"] == 1 and mean["low"] > 0
    (claim,) = content["claims"]
    assert claim["outcome"] == "undecided" and claim["reason"] == "no encoder"
    seeds = [
        r for r in read_csv(folder / "t.long.csv") if (r["dataset"], r["column"]) == ("b", "uld")
    ]
    assert [row["seed"] for row in seeds] == ["0", "1", "2"]


PUBLISHED = (
    "dataset,teacher,student,fraction,column,metric,value,source,note\n"
    "a,llama,opt,100,uld,f1,60.00,file,a note | to read\n"
    "a,llama,opt,100,teacher_text,f1,99.00,file,\n"
    "a,llama,opt,100,native,f1,10.00,file,\n"
    "b,llama,opt,100,uld,rouge1,50.00,file,another metric\n"
)


def test_published_values_stand_beside_ours_with_a_verdict(tmp_path):
    published = tmp_path / "published.csv"
    published.write_text(PUBLISHED)
    folder = made(table_spec(), tmp_path, published)
    first, second = read_csv(folder / "t.csv")
    assert (first["published_uld"], first["inside_uld"]) == ("60.0", "yes")
    assert (first["published_teacher_text"], first["inside_teacher_text"]) == ("99.0", "no")
    assert (first["published_native"], first["inside_native"]) == ("10.0", "")
    assert float(first["difference_uld"]) == float(first["uld"]) - 60
    assert second["published_uld"] == second["difference_uld"] == "", (
        "another metric is another cell"
    )
    cell = json.loads((folder / "t.json").read_text())["rows"][0]["cells"]["uld"]
    assert cell["published"] == 60 and cell["inside"] is True
    assert cell["prediction"][0] < 60 < cell["prediction"][1]
    assert cell["published_source"] == "file"
    md = (folder / "t.md").read_text()
    assert (
        "## Beside the published figures" in md and "uld of a/llama/opt: a note \\| to read" in md
    )
    assert len([line for line in md.splitlines() if line.endswith(" yes      |")]) == 1


def test_with_fewer_than_three_seeds_nothing_is_called_inside(tmp_path):
    published = tmp_path / "published.csv"
    published.write_text(PUBLISHED)
    folder = made(table_spec(seeds=[0, 1]), tmp_path, published)
    cell = json.loads((folder / "t.json").read_text())["rows"][0]["cells"]["uld"]
    assert cell["prediction"] is None and cell["inside"] is None


def test_without_published_values_nothing_is_said_of_them(tables):
    assert "published" not in (tables / "t.csv").read_text()
    assert "published" not in (tables / "t.md").read_text()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace('"a-0", ', ""), "39 examples, but 40 scores"),
        (lambda text: text.replace('"ids"', '"id"'), "no score 'f1' to read"),
        (lambda text: re.sub(r"\[(-?\d)", r"[NaN, \1", text, count=1), "are no numbers"),
        (lambda text: text.replace('"a-0"', '"z"'), "scored on different examples"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(tmp_path, spoil, message):
    spec = table_spec()
    write_results(spec, tmp_path, scorer)
    path = tmp_path / "runs/a/llama/opt/uld/f100/s1/eval/a/scores.json"
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ArtifactError, match=message):
        write_table(spec, tmp_path, tmp_path / "tables")


def test_kd_show_folds_statistics_into_their_cells(tables, capsys):
    print_table(tables / "t.csv")
    shown = capsys.readouterr().out
    assert "gain_uld_lo" not in shown and "uld_sd" not in shown
    row = read_csv(tables / "t.csv")[0]
    assert f"{float(row['uld']):.2f} ± {float(row['uld_sd']):.2f}" in shown
    assert f"{float(row['gain_uld']):+.2f} [" in shown and "]*" in shown


texts = st.text(min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(0, 100), min_size=12, max_size=12), min_size=4, max_size=4),
    seeds=st.sampled_from([[0], [0, 1], [5, 3, 4]]),
    title=texts,
    text=texts,
)
def test_any_scores_and_any_words_give_files_that_can_be_read_back(values, seeds, title, text):
    spec = table_spec(seeds=seeds, title=title, claims=[named_claim(text=text)])

    def score(place, column, seed):
        index = ("teacher_score", "native", "teacher_text", "uld").index(column)
        return [min(100.0, value + (seed or 0)) for value in values[index]]

    with TemporaryDirectory() as scratch:
        found = build_content(spec, write_scores(spec, Path(scratch), score), resamples=199)
    paths = {path for line in found.lines for cell in line.cells.values() for path in cell.scores}
    content = json.loads(render_json(found, dict.fromkeys(paths, "identity")))
    rows = list(csv.DictReader(io.StringIO(render_csv(found))))
    md, tex = render_markdown(found), render_latex(found)
    assert content["title"] == title and content["claims"][0]["text"] == text
    for row, line in zip(rows, content["rows"], strict=True):
        gain, uld = line["cells"]["gain_uld"], line["cells"]["uld"]
        assert number(row["gain_uld"]) == gain["value"] and number(row["uld"]) == uld["value"]
        assert gain["low"] - 1e-6 <= gain["value"] <= gain["high"] + 1e-6
        assert 0 < gain["p"] <= gain["p_holm"] <= 1
        assert uld["value"] == pytest.approx(sum(uld["per_seed"].values()) / len(seeds))
        assert f"{gain['value']:+.2f}" in md and f"{gain['value']:+.2f}" in tex
    assert tex.isascii() and md.count("\n| c ") == 1


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_latex_text_is_ascii_and_cannot_end_a_cell_or_open_a_group(text):
    found = escaped(text)
    assert found.isascii() and "\n" not in found
    bare = re.sub(
        r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|ldots)\{\}",
        "",
        found,
    )
    bare = re.sub(r"\$(\^\{\*\}|\\[a-z]+)\$", "", bare)
    bare = re.sub(r"\\[&%$#_{}]", "", bare)
    assert not set(bare) & set('\\&%$#_{}~^<>|"*')


def test_the_latex_file_is_one_balanced_booktabs_environment(spec, tables):
    content = build_content(spec, tables.parent)
    tex = render_latex(content)
    assert tex == (tables / "t.tex").read_text()
    for name in ("table", "tabular"):
        assert tex.count(f"\\begin{{{name}}}") == tex.count(f"\\end{{{name}}}") == 1
    assert [tex.count(f"\\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    body = tex.partition("\\toprule")[2].partition("\\bottomrule")[0].splitlines()
    cells = [line.count(" & ") for line in body if line.endswith("\\\\")]
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", tex)
    assert set(cells) == {len(columns) - 1} and len(cells) == 3
    plain = re.sub(r"\\[{}]", "", tex)
    assert plain.count("{") == plain.count("}")
    assert render_markdown(content) == (tables / "t.md").read_text()
