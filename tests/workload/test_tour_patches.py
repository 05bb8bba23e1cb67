"""The models of the tour's patches: the crash crashes, the cheat reads later tokens, and no other one does.

`tests/engine/test_workload_inside.py` writes the patched models beside this file, in the base image.
"""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

PATCHED = Path(__file__).with_name("patched")
SIZES = {
    "vocab_size": 97,
    "context_length": 24,
    "num_layers": 2,
    "model_width": 32,
    "num_heads": 2,
    "head_dim": 16,
}


def model_of(name):
    """The model of a patch, every weight of which matters."""
    if not PATCHED.is_dir():
        pytest.skip("there are no patched models outside the base image")
    spec = spec_from_file_location("patched", PATCHED / f"{name}.py")
    module = sys.modules["patched"] = module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    model = module.GPT(module.GPTConfig(**SIZES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def sees_later_tokens(model):
    tokens = torch.randint(97, (3, 24), generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 97
    with torch.inference_mode():
        before, after = model(tokens), model(changed)
    return not torch.equal(before[:, :12], after[:, :12])


def test_the_cheat_reads_later_tokens():
    assert sees_later_tokens(model_of("6-both-neighbors"))


@pytest.mark.parametrize("name", ["1-reworded-docstring", "3-rotary-base", "5-shared-keys-repaired", "your-turn"])
def test_the_others_read_earlier_tokens_only(name):
    assert not sees_later_tokens(model_of(name))


def test_the_crash_names_the_shape_that_its_repair_restores():
    with pytest.raises(RuntimeError, match=r"shape .* is invalid"):
        sees_later_tokens(model_of("5-shared-keys"))
