"""The items of the NeurIPS paper checklist and of ACL's responsible NLP research checklist."""

from kd.exports.checklist import Checklist, Item
from kd.exports.facts import Facts


def _reproducible(facts: Facts) -> str:
    if not facts.identities:
        return ""
    code = f" from {facts.code}" if facts.code else ""
    return (
        f"Every number is chained to its rows by digests ({facts.identities}){code}; "
        "`kd audit TABLE --repeat 1` makes a cell again"
    )


def _details(facts: Facts) -> str:
    parts = (facts.splits, facts.hyperparameters, f"checkpoint: {facts.selection}", facts.prompts)
    return ". ".join(part for part in parts if part) if facts.selection else facts.hyperparameters


def _error_bars(facts: Facts) -> str:
    return f"{facts.spread}. {facts.seeds}" if facts.spread else ""


def _setup(facts: Facts) -> str:
    return f"{facts.hyperparameters}. Checkpoint: {facts.selection}" if facts.selection else ""


def _sizes_and_compute(facts: Facts) -> str:
    if not facts.compute:
        return ""
    return f"Parameters: {facts.sizes or 'not known'}. Compute: {facts.compute}"


_ATTEMPTS = (
    "Failed attempts and earlier experiments leave no manifests: they are not in these totals."
)
_SEARCH = "Whether values were searched for, and over what, is for the authors to say."
_ONE_SEED = "A spread needs several seeds."

NEURIPS = Checklist(
    "NeurIPS paper checklist",
    "https://neurips.cc/public/guides/PaperChecklist",
    (
        Item("1", "Claims match results", remark="`kd audit` evaluates the declared claims."),
        Item("2", "Limitations discussed"),
        Item("3", "Theory: assumptions and proofs"),
        Item("4", "Enough information to reproduce the results", _reproducible),
        Item(
            "5",
            "Open access to data and code",
            remark="A commit and digests are recorded; whether they are public is not.",
        ),
        Item("6", "Experimental settings and details", _details, _SEARCH),
        Item("7", "Error bars and statistical significance", _error_bars, _ONE_SEED),
        Item("8", "Compute resources", lambda facts: facts.compute, _ATTEMPTS),
        Item("9", "Code of ethics"),
        Item("10", "Broader impacts"),
        Item("11", "Safeguards for release"),
        Item("12", "Licences of existing assets", remark="Manifests name the hub's alone."),
        Item("13", "New assets documented", remark="`kd export model` writes a card."),
        Item("14", "Crowdsourcing and human subjects"),
        Item("15", "Review board approval"),
        Item("16", "Use of language models in the research", remark="Of those studied: item 6."),
    ),
)

ACL = Checklist(
    "ACL responsible NLP research checklist",
    "https://aclrollingreview.org/responsibleNLPresearch/",
    (
        Item("A1", "Limitations"),
        Item("A2", "Potential risks"),
        Item("B1", "Creators of artifacts cited", remark="Sources are named under B5."),
        Item("B2", "Licence or terms of artifacts", remark="Manifests name the hub's alone."),
        Item("B3", "Use consistent with intended use"),
        Item("B4", "Personal or offensive content checked"),
        Item("B5", "Documentation of artifacts", lambda facts: facts.sources),
        Item("B6", "Statistics of data and splits", lambda facts: facts.splits),
        Item("C1", "Model size, compute and infrastructure", _sizes_and_compute, _ATTEMPTS),
        Item("C2", "Setup and best hyper-parameters", _setup, _SEARCH),
        Item("C3", "Descriptive statistics: runs and spread", _error_bars, _ONE_SEED),
        Item(
            "C4",
            "Packages and their settings",
            lambda facts: f"{facts.software}. Metrics: {facts.metrics}" if facts.metrics else "",
        ),
        Item("D1", "Instructions to annotators"),
        Item("D2", "Recruitment and payment"),
        Item("D3", "Consent"),
        Item("D4", "Review board approval of data collection"),
        Item("D5", "Annotators' characteristics"),
        Item("E1", "Use of AI assistants"),
    ),
)

CHECKLISTS = {"neurips": NEURIPS, "acl": ACL}
