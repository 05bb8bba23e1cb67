"""Judgement of versions: known flaws of old ones are named, current ones and fixed lines have no finding."""

from __future__ import annotations

import re

import pytest

from runner.sandbox.doctor.finding import NAMES, VERSION_NAMES
from runner.sandbox.doctor.versions import COMPONENTS, classify, collect, is_fixed, parse, version_findings
from runner.sandbox.engine import Engine

BY_NAME = {one.name: one for one in COMPONENTS}

FLAWED = {
    "Debian's engine": ("engine-version", "20.10.24+dfsg1", ["CVE-2024-24557"]),
    "an engine of a line that is not maintained": ("engine-version", "23.0.6", ["CVE-2024-24557"]),
    "an engine before the fix of its line": ("engine-version", "24.0.8", ["CVE-2024-24557"]),
    "an engine before the fix of the last line": ("engine-version", "25.0.1", ["CVE-2024-24557"]),
    "Debian's runc": ("runc-version", "1.1.5+ds1", ["CVE-2024-21626", "CVE-2025-31133"]),
    "runc with the first fix only": ("runc-version", "1.1.12", ["CVE-2025-31133", "CVE-2025-52565"]),
    "runc 1.2": ("runc-version", "1.2.7", ["CVE-2025-52881"]),
    "runc 1.3": ("runc-version", "1.3.2", ["CVE-2025-52881"]),
    "a candidate of runc 1.4": ("runc-version", "1.4.0-rc.2", ["CVE-2025-52881"]),
    "Debian's containerd": ("containerd-version", "1.6.20~ds1", ["CVE-2024-25621"]),
    "containerd 1.7": ("containerd-version", "v1.7.28", ["CVE-2024-25621"]),
    "containerd 2.1": ("containerd-version", "2.1.4", ["CVE-2024-25621"]),
    "the toolkit": ("toolkit-version", "1.17.7", ["CVE-2025-23266"]),
    "torch": ("torch-version", "2.9.1+cu130", ["CVE-2026-24747"]),
    "GitPython": ("gitpython-version", "3.1.58", ["CVE-2026-78676"]),
    "the driver": ("driver-version", "575.57.08", ["CUDA 13"]),
}
CURRENT = {
    "a current engine": ("engine-version", "28.2.2"),
    "an engine with the fix of its line": ("engine-version", "24.0.9"),
    "the first fixed engine": ("engine-version", "25.0.2"),
    "a current runc": ("runc-version", "1.4.0"),
    "runc 1.2 with the fix": ("runc-version", "1.2.8"),
    "runc 1.3 with the fix": ("runc-version", "1.3.3"),
    "the fixed candidate of runc 1.4": ("runc-version", "1.4.0-rc.3"),
    "runc of the future": ("runc-version", "2.0.0"),
    "containerd 1.7 with the fix": ("containerd-version", "v1.7.29"),
    "containerd 2.0 with the fix": ("containerd-version", "2.0.7"),
    "containerd 2.2": ("containerd-version", "2.2.0"),
    "the toolkit": ("toolkit-version", "1.17.8"),
    "a newer toolkit": ("toolkit-version", "1.18.1"),
    "torch": ("torch-version", "2.10.0"),
    "torch of today": ("torch-version", "2.13.0+cpu"),
    "GitPython": ("gitpython-version", "3.1.59"),
    "the driver": ("driver-version", "580.65.06"),
    "a kernel": ("kernel-version", "6.1.0-25-amd64"),
    "git": ("git-version", "2.39.5"),
}


@pytest.mark.parametrize("case", FLAWED)
def test_an_old_version_is_a_problem_that_names_its_flaws_and_a_remedy(case):
    name, version, expected = FLAWED[case]
    finding = classify(BY_NAME[name], version)
    assert (finding.name, finding.level) == (name, "problem")
    assert version in finding.fact
    assert all(one in finding.reason for one in expected)
    assert f"[accept] {name}" in finding.remedy


@pytest.mark.parametrize("case", CURRENT)
def test_a_current_version_is_no_finding(case):
    name, version = CURRENT[case]
    finding = classify(BY_NAME[name], version)
    assert (finding.level, finding.reason, finding.remedy) == ("ok", None, None)


def test_a_fixed_flaw_is_not_named_with_the_open_one():
    assert "CVE-2024-21626" not in classify(BY_NAME["runc-version"], "1.1.12").reason


@pytest.mark.parametrize(("name", "version"), [("kernel-version", "4.19.0-27-amd64"), ("git-version", "2.34.1")])
def test_an_old_kernel_or_git_is_only_a_note(name, version):
    finding = classify(BY_NAME[name], version)
    assert finding.level == "note"
    assert finding.reason and finding.remedy


@pytest.mark.parametrize("text", [None, "", "unknown", "v5"])
def test_a_version_that_is_not_reported_is_a_note_and_never_good(text):
    finding = classify(BY_NAME["runc-version"], text)
    assert finding.level == "note"
    assert finding.reason and finding.remedy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20.10.24+dfsg1", (20, 10, 24)),
        ("v1.7.29", (1, 7, 29)),
        ("1.6.20~ds1", (1, 6, 20)),
        ("git version 2.39.5 (Apple Git-154)", (2, 39, 5)),
        ("6.18.44-fc-v782", (6, 18, 44)),
        ("570.133", (570, 133, 0)),
        ("26.1.5-0ubuntu1~22.04", (26, 1, 5)),
    ],
)
def test_decorations_of_distributions_do_not_matter(text, expected):
    assert parse(text)[:3] == expected


def test_candidates_for_a_release_come_before_it_in_their_order():
    in_order = [
        "1.3.9",
        "1.4.0-alpha.2",
        "1.4.0-beta",
        "1.4.0-rc.1",
        "1.4.0-rc.3",
        "1.4.0~rc.10",
        "1.4.0",
        "1.4.1",
    ]
    assert [parse(one) for one in in_order] == sorted(parse(one) for one in in_order)


def test_a_line_that_was_fixed_counts_by_its_own_release():
    releases = ("1.2.8", "1.3.3")
    fixed = {
        one: is_fixed(parse(one), releases) for one in ("1.1.99", "1.2.7", "1.2.8", "1.3.0", "1.3.3", "1.4.0")
    }
    assert fixed == {"1.1.99": False, "1.2.7": False, "1.2.8": True, "1.3.0": False, "1.3.3": True, "1.4.0": True}


class FakeClient:
    """A client whose engine reports these versions."""

    def __init__(self, answer):
        self.answer = answer

    def version(self):
        return self.answer


def engine(answer):
    return Engine(url="unix:///x", daemon_id="x", version="x", client=FakeClient(answer))


def test_an_engine_reports_the_versions_of_its_components():
    answer = {
        "Version": "28.2.2",
        "Components": [
            {"Name": "Engine", "Version": "28.2.2"},
            {"Name": "containerd", "Version": "1.7.29"},
            {"Name": "runc", "Version": "1.2.8"},
            {"Name": "docker-init", "Version": "0.19.0"},
        ],
    }
    assert {one.name: one.level for one in version_findings(engine(answer), "cpu")} == dict.fromkeys(
        [name for name in VERSION_NAMES if name not in ("toolkit-version", "driver-version")], "ok"
    )


def test_an_engine_that_reports_only_its_own_version_leaves_notes():
    levels = {one.name: one.level for one in version_findings(engine({"Version": "28.2.2"}), "cpu")}
    assert (levels["engine-version"], levels["runc-version"], levels["containerd-version"]) == (
        "ok",
        "note",
        "note",
    )


def test_the_versions_of_a_gpus_software_are_asked_for_on_the_cuda_profile_only(tmp_path, monkeypatch):
    for name, text in (
        ("nvidia-ctk", "NVIDIA Container Toolkit CLI version 1.17.8\ncommit: 1"),
        ("nvidia-smi", "580.65.06"),
    ):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{text}'\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = collect(None, "cuda")
    assert (found["toolkit-version"], found["driver-version"]) == ("1.17.8", "580.65.06")
    assert not {"toolkit-version", "driver-version"} & collect(None, "cpu").keys()


def test_a_tool_that_is_missing_or_fails_has_no_version(tmp_path, monkeypatch):
    broken = tmp_path / "nvidia-smi"
    broken.write_text("#!/bin/sh\necho 580.1\nexit 9\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = collect(None, "cuda")
    assert (found["toolkit-version"], found["driver-version"], found["git-version"]) == (None, None, None)


@pytest.mark.parametrize("profile", ["cpu", "cuda"])
def test_the_version_of_torch_is_that_of_the_lock(profile):
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+cpu)?", collect(None, profile)["torch-version"])


def test_every_component_has_a_name_that_can_be_accepted():
    assert {one.name for one in COMPONENTS} == set(VERSION_NAMES)
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"[a-z-]+", name) for name in NAMES), "a bare key of TOML"
