"""Files for a release and its hosting site: the changelog, the citation and the CI workflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# Every key that Citation File Format 1.2.0 requires, and the types of reference that are used.
CITATION_KEYS = {"cff-version", "message", "title", "authors"}
REFERENCE_KEYS = {"type", "title", "authors"}
REFERENCE_TYPES = {"conference-paper", "software"}


def project(key: str) -> str:
    """A value from pyproject.toml, found by a pattern: Python 3.10 has no TOML parser."""
    found = re.search(rf'^{key} = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found
    return found[1]


def document(path: str) -> dict[Any, Any]:
    """The content of a YAML file."""
    read = yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
    assert isinstance(read, dict)
    return read


@pytest.fixture
def workflow() -> dict[Any, Any]:
    return document(".github/workflows/ci.yml")


@pytest.fixture
def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    """The steps of every job."""
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    """Its headings and kinds of changes are those of Keep a Changelog."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", text, flags=re.MULTILINE)
    assert versions[0][0] == project("version")
    assert text.count("\n## ") == len(versions)
    kinds = set(re.findall(r"^### (.+)$", text, flags=re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_is_complete() -> None:
    """It has every required key, and the version and license of the project."""
    citation = document("CITATION.cff")
    assert citation.keys() >= CITATION_KEYS
    assert str(citation["cff-version"]) == "1.2.0"
    assert (str(citation["version"]), citation["license"]) == (project("version"), project("license"))
    for reference in citation["references"]:
        assert reference.keys() >= REFERENCE_KEYS
        assert reference["type"] in REFERENCE_TYPES
    people = [author for work in (citation, *citation["references"]) for author in work["authors"]]
    assert all(author.keys() in ({"name"}, {"family-names", "given-names"}) for author in people)


def test_the_workflow_runs_targets_of_the_makefile(steps: list[dict[str, Any]]) -> None:
    """Lint, the fast tests, the slow tests and the reproducibility check, and no other."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {name for step in steps for name in re.findall(r"\bmake ([\w-]+)", step.get("run", ""))}
    assert named == {"lint", "test", "test-slow", "check"}
    assert named <= targets


def test_the_workflow_installs_the_packages_of_ci_run(workflow: dict[Any, Any]) -> None:
    """All packages that `.ci/run` names, and no other."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    wanted = re.findall(r'^packages="(?:\$packages )?(.*)"$', script, flags=re.MULTILINE)
    given = workflow["env"]["PACKAGES"], workflow["env"]["OPTIONAL_PACKAGES"]
    assert sorted(" ".join(given).split()) == sorted(" ".join(wanted).split())


def test_the_workflow_has_read_permission_only(workflow: dict[Any, Any], steps: list[dict[str, Any]]) -> None:
    """No job asks for more, every action has a version, and no checkout keeps its token."""
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    uses = [step for step in steps if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in uses)
    checkouts = [step for step in uses if "checkout" in step["uses"]]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_workflow_caches_by_the_locks_and_tests_every_python(
    workflow: dict[Any, Any], steps: list[dict[str, Any]]
) -> None:
    """From the oldest Python that the project supports to the newest."""
    paths = [step["with"]["cache-dependency-path"] for step in steps if "setup-python" in step.get("uses", "")]
    assert len(paths) == len(workflow["jobs"])
    assert set(paths) == {"requirements/*.lock"}
    assert list((ROOT / "requirements").glob("*.lock"))
    low, high = map(int, re.findall(r"3\.(\d+)", project("requires-python")))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(low, high)]
