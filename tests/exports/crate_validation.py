"""The crates' own validator, offline: JSON-LD contexts come from ro-crate-py's package."""

import json
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from unittest.mock import patch

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
# ro-crate-py ships a later context; these terms had other addresses in 1.1.
OF_1_1 = {
    name: f"https://bioschemas.org/{address}"
    for name, address in {
        "ComputationalWorkflow": "ComputationalWorkflow",
        "FormalParameter": "FormalParameter",
        "input": "ComputationalWorkflow#input",
        "output": "ComputationalWorkflow#output",
    }.items()
}


def context():
    shipped = json.loads((files("rocrate") / "data" / "ro-crate.jsonld").read_text())
    return {"@context": shipped["@context"] | OF_1_1}


@contextmanager
def offline():
    """Serve the one context that crates name, and nothing else."""
    import requests
    from rocrate_validator.utils import document_loader
    from rocrate_validator.utils.http import HttpRequester

    def answer(_, address: str, **options):
        response = requests.Response()
        response.status_code, response.url = 200, address
        response.headers["Content-Type"] = "application/ld+json"
        response._content = json.dumps(fetch(address)).encode()
        return response

    def fetch(address: str):
        if address.rstrip("/") != CONTEXT:
            raise AssertionError(f"the validator asks for {address}")
        return context()

    with (
        patch.object(document_loader, "_fetch_json_ld", fetch),
        patch.object(HttpRequester, "get", answer, create=True),
    ):
        document_loader.install_document_loader()
        yield


def findings(crate: Path, profile: str, severity: str) -> list[str]:
    """What the validator says against the crate, by severity and check."""
    from rocrate_validator import models, services

    settings = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier=profile,
        requirement_severity=models.Severity[severity],
        disable_remote_crate_download=True,
    )
    with offline():
        result = services.validate(settings)
    return sorted(
        f"{issue.severity.name} {issue.check.identifier} {issue.violatingEntity}: {issue.message}"
        for issue in result.get_issues()
    )


if __name__ == "__main__":
    import sys

    for line in findings(Path(sys.argv[1]), sys.argv[2], sys.argv[3]):
        print(line)
