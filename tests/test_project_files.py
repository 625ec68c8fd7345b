"""The files around the code agree with it: citation, image, workflow."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

import visionkit
from tests.house_rules import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == visionkit.__version__
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [each["name"] for each in PROJECT["authors"]]


def test_the_image_holds_what_the_kubernetes_file_starts():
    job = yaml.safe_load((ROOT / "recipes/cluster/kubernetes.yaml").read_text())["spec"]["trainer"]
    assert f"--tag {job['image']} " in DOCKERFILE
    assert job["image"].endswith(f":{visionkit.__version__}")
    (folder,) = re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.M)
    copied = re.findall(r"^COPY (.+) (\S+)$", DOCKERFILE, re.M)
    started = job["args"][0].removeprefix(f"{folder}/")
    assert (ROOT / started).is_file()
    assert ("recipes", "recipes") in copied
    shown = set((ROOT / ".dockerignore").read_text().split())
    for name in {word for words, _ in copied for word in words.split()}:
        assert (ROOT / name).exists()
        assert f"!{name}" in shown, "the rest is not sent to the builder"


def test_the_image_installs_extras_that_there_are():
    (extras,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.M)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)", DOCKERFILE, re.M)
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert [int(part) for part in python.split(".")] >= [int(part) for part in lowest.split(".")]


@pytest.mark.parametrize("job", ["checks", "tests"])
def test_the_workflow_runs_sessions_that_there_are(job):
    sessions = set(re.findall(r"^@nox.session\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(), re.M))
    matrix = WORKFLOW["jobs"][job]["strategy"]["matrix"]
    named = {each["session"] for each in matrix["include"]} if job == "tests" else set(matrix["session"])
    assert named <= sessions
    if job == "tests":
        assert {"tests", "lowest"} == named
        lowest = PROJECT["requires-python"].removeprefix(">=")
        assert {each["python"] for each in matrix["include"] if each["session"] == "lowest"} == {lowest}
