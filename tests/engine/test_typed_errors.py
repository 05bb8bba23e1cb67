"""Whatever is wrong with the input, a user reads one clear error."""

from __future__ import annotations

import json
import shutil
import socket

import pytest

from tests.support.typed_night import TRAIN

pytestmark = pytest.mark.docker


BAD_INPUT = {
    "unknown setting": (["config"], {"AUTORESEARCH_TYPO": "1"}, 2, "AUTORESEARCH_TYPO"),
    "no campaign": (["status"], {}, 1, "make demo"),
    "dead engine": (["prepare"], {"DOCKER_HOST": "unix://<dead socket>"}, 1, "does not answer"),
    "no engine": (["prepare"], {"DOCKER_HOST": "unix:///nowhere.sock"}, 1, "make engine"),
    "remote engine": (["prepare"], {"DOCKER_HOST": "tcp://192.0.2.1:2375"}, 1, "not local"),
    "no corpus": (["prepare", "--source", "/nowhere"], {}, 1, "/nowhere"),
    "no gpu": (["overnight", "--require-gpu"], {"PATH": "<git alone>"}, 2, "GPU"),
    "no key": (["overnight", "--proposer", "anthropic"], {}, 1, "ANTHROPIC_API_KEY"),
    "no patches": (["overnight", "--from", "/nowhere"], {}, 1, "/nowhere"),
    "no such patch": (["try", "/nowhere.patch"], {}, 2, "/nowhere.patch"),
    "unknown command": (["overday"], {}, 2, "overday"),
    "bad tag": (["overnight", "--tag", "../x"], {}, 2, "tag"),
}


@pytest.mark.parametrize(("arguments", "extra", "code", "names"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_gets_one_clear_error(fresh_clone, tmp_path, arguments, extra, code, names):
    if "<dead socket>" in extra.get("DOCKER_HOST", ""):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "dead.sock"))
        extra = {"DOCKER_HOST": f"unix://{tmp_path}/dead.sock"}
    if extra.get("PATH"):
        (tmp_path / "bin").mkdir()
        for tool in ("git", "env"):
            (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
        extra = {"PATH": str(tmp_path / "bin")}
    result = fresh_clone(*arguments, check=False, **extra)
    assert result.returncode == code, result.stderr
    assert names in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((fresh_clone.state).glob("data/*"))


def test_a_dirty_checkout_cannot_start_a_campaign(fresh_clone):
    (fresh_clone.root / "workload" / "train.py").write_text(TRAIN + "# not committed\n")
    result = fresh_clone("overnight", check=False)
    assert result.returncode == 1
    assert "workload" in result.stderr


def test_what_is_wrong_with_a_corpus_is_said_once(fresh_clone, tmp_path):
    (tmp_path / "lines.jsonl").write_text("text\n")
    result = fresh_clone("prepare", "--source", str(tmp_path / "lines.jsonl"), check=False)
    assert result.returncode == 1
    assert result.stderr.count("line 1 of lines.jsonl is not JSON") == 1
    assert "docs/data.md" in result.stderr


def test_a_cache_of_hugging_face_is_prepared_where_it_lies(fresh_clone, tmp_path):
    cache = tmp_path / "datasets--ada--small"
    for folder in ("blobs", "snapshots/r"):
        (cache / folder).mkdir(parents=True)
    texts = [path.read_text() for path in sorted(fresh_clone.corpus.iterdir())]
    (cache / "blobs" / "0").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (cache / "snapshots" / "r" / "a.jsonl").symlink_to("../../blobs/0")
    facts = json.loads(fresh_clone("prepare", "--source", str(cache), "--json").stdout)
    assert "datasets-ada-small" in facts["data"]


def test_a_corrupt_data_file_is_found_by_its_hash(clone):
    (data,) = (clone.state / "data").iterdir()
    rows = data / "val" / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-2] + b"\x01\x01")
    result = clone("prepare", check=False)
    assert result.returncode == 1
    assert "rows.npy" in result.stderr
    assert "prepare --force" in result.stderr
    clone("prepare", "--force")
