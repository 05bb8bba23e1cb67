"""A prepared data set of random prose, for the tests of the preparation."""

from __future__ import annotations

import json

import pytest

from locked_eval.preparation import tokenizer as bpe
from tests.support.small_corpora import Writer, put, run


@pytest.fixture(scope="session")
def libraries():
    for name in ("rustbpe", "tiktoken", "pyarrow"):
        pytest.importorskip(name)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    writer = Writer()
    return put(
        tmp_path_factory.mktemp("corpus"),
        {f"{number:03d}.txt": writer.text(int(writer.random.integers(200, 1500))) for number in range(100)},
    )


@pytest.fixture(scope="session")
def prepared(libraries, corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    run(corpus, output)
    return output


@pytest.fixture(scope="session")
def tokens(prepared):
    return bpe.load(prepared / "tokenizer")


@pytest.fixture(scope="session")
def manifest(prepared):
    return json.loads((prepared / "manifest.json").read_text())


@pytest.fixture
def pinned(tmp_path):
    """A source whose folders determine the splits, its texts, and the writer of more."""
    writer = Writer(1)
    texts = {f"train/{i:02d}.txt": writer.text(900) for i in range(30)}
    texts |= {f"validation/{i:02d}.txt": writer.text(900) for i in range(16)}
    return put(tmp_path / "source", texts), texts, writer
