"""The distribution's own engine: one note, and problems only where a person installed something else."""

from __future__ import annotations

import pytest

from runner.sandbox.doctor.packaged import installed, merge_packaged
from runner.sandbox.doctor.versions import COMPONENTS, classify

VERSIONS = {"engine-version": "20.10.24+dfsg1", "runc-version": "1.1.5+ds1", "containerd-version": "1.6.20~ds1"}
PACKAGES = {
    "docker.io": "20.10.24+dfsg1-1+deb12u1+b6",
    "runc": "1.1.5+ds1-1+deb12u1",
    "containerd": "1.6.20~ds1-1+deb12u3",
}


def findings(versions):
    return [classify(next(one for one in COMPONENTS if one.name == name), text) for name, text in versions.items()]


def test_an_engine_of_the_distribution_is_one_note_that_names_every_flaw():
    before = findings(VERSIONS)
    assert [one.level for one in before] == ["problem"] * 3
    after = merge_packaged(before, VERSIONS, PACKAGES)
    assert [one.level for one in after] == ["note", "ok", "ok"]
    assert all(version in after[0].fact for version in VERSIONS.values())
    assert all(one.reason in after[0].reason for one in before)
    assert "--only-upgrade docker.io runc containerd" in after[0].remedy


@pytest.mark.parametrize("packages", [{}, {"docker.io": "19.03.8-0ubuntu1"}, {"runc": "1.1.5-1"}])
def test_an_engine_from_elsewhere_stays_a_problem(packages):
    before = findings(VERSIONS)
    assert merge_packaged(before, VERSIONS, packages) == before


def test_only_the_component_that_is_packaged_is_excused():
    after = merge_packaged(findings(VERSIONS), VERSIONS, {"runc": PACKAGES["runc"]})
    assert [one.level for one in after] == ["problem", "note", "problem"]


def test_installed_packages_are_asked_for():
    assert set(installed()) <= set(PACKAGES)
