"""The card of a campaign: tier, memory, and the cards that are refused. A script stands in for nvidia-smi."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.cli.options import resolve_config
from runner.cli.workspace import Workspace
from runner.config import load
from runner.errors import ConfigError
from runner.sandbox import cards
from runner.sandbox.doctor.host import choose_gpu
from runner.sandbox.host import Gpu
from runner.tiers import TIERS, tier_of
from tests.support.constant_workload import git, make_repository

CUDA = load(Path("/nonexistent"), {"profile": "cuda"}, environ={})
GIB = 2**30
ALL = frozenset(TIERS)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A host with 512 GiB, and an nvidia-smi that answers three questions."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(cards, "host_bytes", lambda: 512 * GIB)

    def answer(capability="9.0", programs="", memory="81559", name="NVIDIA H100"):
        script = f"""#!/bin/sh
case "$*" in
    *compute_cap*) echo '{capability}' ;;
    *compute-apps*) printf '{programs}' ;;
    *) echo 'GPU-1, {name}, {memory}' ;;
esac
"""
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)

    answer()
    return answer


def card(memory_mib, name="NVIDIA X"):
    return Gpu(uuid="GPU-1", name=name, memory_mib=memory_mib)


def fitted(*found, sizes=ALL, decided=None, notes=None, **settings):
    config = CUDA.model_copy(update=settings)
    note = (lambda _: None) if notes is None else notes.append
    return cards.fit(config, found, sizes=sizes, decided=decided or {}, note=note)


@pytest.mark.parametrize(
    ("name", "memory_mib", "tier"),
    [
        ("GTX 1660", 6144, None), ("RTX 3060 Ti", 8192, "cuda_8gb"), ("RTX 4060", 8188, "cuda_8gb"),
        ("RTX 3080", 10240, "cuda_8gb"), ("RTX 2080 Ti", 11264, "cuda_8gb"), ("RTX 3060", 12288, "cuda_12gb"),
        ("T4", 15360, "cuda_16gb"), ("RTX 4080", 16376, "cuda_16gb"), ("A10", 23028, "cuda_24gb"),
        ("RTX 4090", 24564, "cuda_24gb"), ("RTX 5090", 32607, "cuda_24gb"), ("A100", 40960, "cuda_40gb"),
        ("L40S", 46068, "cuda_40gb"), ("H100", 81559, "cuda_80gb"), ("GH200", 97871, "cuda_80gb"),
        ("H200", 143771, "cuda_140gb"), ("B200", 183359, "cuda_140gb"),
    ],
)  # fmt: skip
def test_the_tier_is_the_largest_that_fits_what_the_driver_reports(name, memory_mib, tier):
    assert tier_of(memory_mib) == tier, name


def test_the_card_chooses_the_sizes_and_says_so():
    notes = []
    chosen = fitted(card(24564), notes=notes)
    assert (chosen.tier, chosen.sizes) == ("cuda_24gb", "cuda_24gb")
    assert notes == ["NVIDIA X, 24 GiB: sizes cuda_24gb (setting tier)"]


def test_a_program_without_sizes_gets_the_name_of_its_profile(machine):
    machine(capability="7.5")  # it may need no bfloat16
    for sizes in (frozenset(), frozenset({"cpu", "cuda"})):
        chosen = fitted(card(6144), sizes=sizes)
        assert (chosen.tier, chosen.sizes) == ("none", "cuda")


def test_a_tier_can_be_chosen_but_not_one_that_the_workload_lacks():
    assert fitted(card(81559), tier="cuda_16gb").sizes == "cuda_16gb"
    assert fitted(card(81559), tier="none").sizes == "cuda"
    with pytest.raises(ConfigError, match="no such file"):
        fitted(card(81559), tier="cuda_16gb", sizes=frozenset({"cuda_8gb"}))


def test_any_of_several_cards_must_do():
    assert fitted(card(81559), card(24564)).tier == "cuda_24gb"


def test_a_card_that_shares_the_memory_of_the_host_gets_what_candidates_leave(monkeypatch):
    monkeypatch.setattr(cards, "host_bytes", lambda: 119 * GIB)
    assert fitted(card(None, "NVIDIA GB10")).tier == "cuda_40gb"


def test_checkpoints_get_room_by_the_memory_of_card_and_container(monkeypatch):
    assert fitted(card(81559)).output_bytes == 16 * GIB
    assert fitted(card(12288)).output_bytes == 12 * GIB
    assert fitted(card(81559), decided={"output_bytes": 1}).output_bytes == CUDA.output_bytes
    monkeypatch.setattr(cards, "host_bytes", lambda: 32 * GIB)
    small = fitted(card(81559))
    assert (small.memory_bytes, small.output_bytes, small.scratch_bytes) == (24 * GIB, 6 * GIB, 6 * GIB)
    assert fitted(card(81559), decided={"memory_bytes": 1}).memory_bytes == CUDA.memory_bytes


@pytest.mark.parametrize(
    ("changes", "memory_mib", "words"),
    [
        ({}, 6144, "has 6.0 GiB, and sizes begin at 8 GB"),
        ({"capability": "7.5"}, 15360, "compute capability 7.5, and does not compute in bfloat16"),
        ({"programs": "4711, 20000\\n4712, [N/A]\\n"}, 81559, "in use: other programs hold 19.5 GiB"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_in_one_sentence(machine, changes, memory_mib, words):
    machine(**changes)
    with pytest.raises(ConfigError, match=words) as refused:
        fitted(card(memory_mib))
    assert refused.value.remedy
    _, finding = choose_gpu(CUDA, (card(memory_mib),), ALL)
    assert (finding.level, finding.fact) == ("problem", refused.value.message)


@pytest.mark.parametrize("changes", [{"capability": "[N/A]"}, {"capability": ""}, {"programs": "17, 300\\n"}])
def test_an_unknown_capability_and_a_desktop_are_no_obstacle(machine, changes):
    machine(**changes)
    assert fitted(card(81559)).tier == "cuda_80gb"


def test_a_command_takes_the_tier_from_the_sizes_in_head(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    root = make_repository(tmp_path / "repository")
    notes = []
    assert resolve_config(root, notes.append, profile="cuda").sizes == "cuda"
    (root / "workload" / "sizes").mkdir()
    (root / "workload" / "sizes" / "cuda_80gb.py").write_text("NUM_LAYERS = 8\n")
    assert resolve_config(root, notes.append, profile="cuda").sizes == "cuda", "not committed"
    git(root, "add", "-A")
    git(root, "commit", "-qm", "sizes")
    assert notes == []
    assert resolve_config(root, notes.append, profile="cuda").sizes == "cuda_80gb"
    assert notes == ["NVIDIA H100, 80 GiB: sizes cuda_80gb (setting tier)"]
    begun = {"profile": "cuda", "tier": "none"}
    assert resolve_config(root, notes.append, recorded=lambda _: begun).sizes == "cuda", "a campaign without one"
    assert resolve_config(root, notes.append, profile="cpu").sizes == "cpu"


@pytest.mark.parametrize(
    ("conditions", "tier"), [({"profile": "cuda"}, "none"), ({"profile": "cuda", "tier": "cuda_8gb"}, "cuda_8gb")]
)
def test_a_campaign_goes_on_with_the_sizes_that_it_began_with(conditions, tier):
    ledger = SimpleNamespace(campaign=lambda _tag: SimpleNamespace(conditions=conditions))
    workspace = Workspace(repository=None, paths=None, ledger=ledger)
    assert workspace.recorded("night") == {"profile": "cuda", "tier": tier}
