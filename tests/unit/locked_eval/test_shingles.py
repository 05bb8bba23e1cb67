"""Shingles against a reference, and a tokenizer that loses no byte."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from locked_eval.preparation import shingles
from tests.support.small_corpora import Writer, word_list

words = st.sampled_from(["a", "B", "the", "é", "Ω1", "漢字", "한글 x", "x-y", "’", "\0", "..."])


texts = st.lists(st.lists(words, max_size=40).map(" ".join), max_size=6)


@given(texts)
@example(["", "a " * 13, "a " * 12, "字" * 14])
def test_equal_shingles_have_equal_hashes_and_different_ones_do_not(documents):
    found = shingles.shingle([document.encode() for document in documents])
    expected = []
    for number, document in enumerate(documents):
        listed = word_list(document.encode())
        expected += [(number, tuple(listed[i : i + 13])) for i in range(len(listed) - 12)]
    assert found.document.tolist() == [number for number, _ in expected]
    by_hash = dict(zip(found.hashes.tolist(), (gram for _, gram in expected), strict=True))
    assert len(by_hash) == len({gram for _, gram in expected})
    for start, end, (number, gram) in zip(found.start, found.end, expected, strict=True):
        assert word_list(documents[number].encode()[start:end]) == list(gram)


def test_shingles_do_not_depend_on_where_blocks_end(monkeypatch):
    documents = [Writer(seed).text(300).encode() for seed in range(5)]
    whole = shingles.shingle(documents)
    monkeypatch.setattr(shingles, "_BLOCK_BYTES", 64)
    for a, b in zip(whole, shingles.shingle(documents), strict=True):
        assert a.tolist() == b.tolist()


@given(st.lists(st.integers(0, 2**64 - 1)), st.lists(st.integers(0, 2**64 - 1)))
def test_a_shingle_set_contains_what_was_put_in(inside, others):
    held = shingles.ShingleSet([np.array(inside, np.uint64)])
    asked = np.array([*inside, *others], np.uint64)
    assert held.contains(asked).tolist() == [value in set(inside) for value in asked.tolist()]
    index, place = held.find(asked)
    assert held.sorted[place].tolist() == asked[index].tolist()


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 80), st.integers(1, 30)), max_size=8),
)
def test_touched_rows_are_those_that_overlap_a_span(sizes, spans):
    edges = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.array([start for start, _ in spans], np.int64)
    ends = starts + np.array([size for _, size in spans], np.int64)
    found = shingles.rows_touched(starts, ends, edges)
    for row, size in enumerate(sizes):
        overlaps = bool(((starts < edges[row + 1]) & (ends > edges[row])).any())
        assert found[row] == overlaps or size == 0


@given(st.text(max_size=300))
def test_any_text_survives_the_tokenizer(libraries, tokens, text):
    (found,) = tokens.encode([text.encode("utf-8")])
    assert tokens.decode(found).decode("utf-8") == text
    assert tokens.token_bytes()[found].sum(dtype=np.int64) == len(text.encode("utf-8"))


def test_a_long_run_of_white_space_does_not_stop_the_tokenizer(libraries, tokens):
    for text in (b" " * 300_000, b"\n" * 300_000, b"a" * 300_000, b" \t" * 100_000 + b"x"):
        (found,) = tokens.encode([text])
        assert tokens.decode(found) == text
