"""Near duplicates: documents whose text a more sealed split has already."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np

from locked_eval.preparation.documents import EVAL_SPLITS, Codes, Corpus, Split, groups
from locked_eval.preparation.index import IndexBuilder
from locked_eval.preparation.progress import Progress, Say
from locked_eval.preparation.shingles import Hashes, Mask, ShingleSet, near_duplicates, shingle


class Sealed(NamedTuple):
    """Validation and test, and the text that they share with training."""

    documents: dict[Split, list[bytes]]
    shingles: dict[Split, ShingleSet]
    in_train: ShingleSet  # shingles of both that training has too


def drop_near_duplicates(corpus: Corpus, codes: Codes, index: IndexBuilder, say: Say) -> Sealed:
    """Mark near duplicates in `codes`, which settles the documents of every split; all text goes into `index`."""
    sealed = _gather(corpus, codes)
    for documents in sealed.values():
        for group, _ in groups(documents):
            index.add(group)
    num_documents = sum(map(len, sealed.values()))
    say(f"looking for text that {num_documents:,} documents of validation and test share with others")
    test = _shingle_set(sealed[Split.TEST])
    distinct = _distinct(sealed[Split.VALIDATION], test)
    codes[np.flatnonzero(codes == Split.VALIDATION)[~distinct]] = Split.NEAR_DUPLICATE
    sealed[Split.VALIDATION] = list(compress(sealed[Split.VALIDATION], distinct.tolist()))
    validation = _shingle_set(sealed[Split.VALIDATION])
    leaked = _clear_training(corpus, codes, ShingleSet([test.sorted, validation.sorted]), index, say)
    counts = np.bincount(codes, minlength=len(Split))
    say(f"left out {counts[Split.NEAR_DUPLICATE]:,} near and {counts[Split.DUPLICATE]:,} exact duplicates")
    return Sealed(sealed, {Split.VALIDATION: validation, Split.TEST: test}, ShingleSet([leaked]))


def _gather(corpus: Corpus, codes: Codes) -> dict[Split, list[bytes]]:
    """Read the documents of validation and of test."""
    found: dict[Split, list[bytes]] = {split: [] for split in EVAL_SPLITS}
    for batch in corpus.read(np.isin(codes, EVAL_SPLITS)):
        for number, document in zip(batch.numbers, batch.documents, strict=True):
            found[Split(int(codes[number]))].append(document)
    return found


def _shingle_set(documents: Sequence[bytes]) -> ShingleSet:
    return ShingleSet(shingle(group).hashes for group, _ in groups(documents))


def _distinct(documents: Sequence[bytes], sealed: ShingleSet) -> Mask:
    """`(D,)` mask of the documents that are not near duplicates of sealed ones."""
    near = [np.zeros(0, np.bool_)]
    for group, _ in groups(documents):
        found = shingle(group)
        near.append(near_duplicates(found, sealed.contains(found.hashes), len(group)))
    return ~np.concatenate(near)


def _clear_training(corpus: Corpus, codes: Codes, sealed: ShingleSet, index: IndexBuilder, say: Say) -> Hashes:
    """Mark training documents that are near duplicates of sealed ones, in `codes`; all of them go into `index`.

    Returns: the sealed hashes that the remaining training documents hold.
    """
    leaked = np.zeros(len(sealed), np.bool_)
    progress = Progress(say, "comparing", int(corpus.sizes[codes == Split.TRAIN].sum()))
    for batch in corpus.read(codes == Split.TRAIN):
        found = shingle(batch.documents)
        where, place = sealed.find(found.hashes)
        shared = np.zeros(len(found.hashes), np.bool_)
        shared[where] = True
        near = near_duplicates(found, shared, len(batch.documents))
        codes[batch.numbers[near]] = Split.NEAR_DUPLICATE
        leaked[place[~near[found.document[where]]]] = True
        index.add(batch.documents)
        progress.add(sum(map(len, batch.documents)))
    return sealed.sorted[leaked]
