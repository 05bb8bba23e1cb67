"""From a folder of documents to tokens, rows and byte lengths. Runs in a container without network:

python prepare.py --source /source --output /output --vocab-size V --context-length T --max-eval-rows N

/output
├── train/shard-00.bin    little-endian uint16: BOS document BOS document …; 32 shards of about equal length
├── train/meta.json
├── val/rows.npy          (N, T + 1) uint16, never overlapping, at an even stride over the whole split
├── val/meta.json
├── test/rows.npy         the same; sealed: for a person to look at, never for a decision
├── test/meta.json
├── shingles/val.npy      sorted uint64 hashes of all 13-word shingles of the validation documents
├── shingles/test.npy     the same of the test documents; both without what stands in the training text too
├── shingles/corpus.npy   index of all documents, to keep their text out of logs: see `corpus_index.py`
├── tokenizer/            ranks.txt, pattern.txt, token_bytes.npy: see `tokenizer.py`
└── manifest.json         SHA-256 and size of every file above, parameters, counts; written last

What is proven, by counting again from the written files and refusing to end otherwise: no document, by the
hash of its words, is in two splits; no 13-word shingle of a row of validation or test stands in the training
text; none of a test row stands in a validation row; no row holds a shingle of another row of its split; and
token byte lengths add up to the raw size of every split. A shingle is 13 whole words: where the edge of a row
cuts a word, that word is no word of the row (but the row was dropped if the uncut text leaked).

A training document goes whole into the shard that is shortest so far, so that every shard has text from all
over the corpus and leaving one out changes no distribution. A corpus of few or short documents has fewer shards.

The same source, parameters and library versions give the same bytes. Memory stays below about 4 GB whatever
the source; the training text is streamed, only validation and test are held. Ends with code 2 and one line
`error: …` on stderr when the source cannot be used; then nothing but an empty `/output` is left.
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from itertools import compress, pairwise
from pathlib import Path
from typing import NamedTuple

if not __package__:  # started as a script: its own folder must not be where imports are looked up
    sys.path[:] = [
        str(Path(__file__).resolve().parents[1]),
        *(entry for entry in sys.path if entry != sys.path[0]),
    ]

import numpy as np
import numpy.typing as npt

from locked_eval import tokenizer as bpe
from locked_eval.corpus_index import IndexBuilder
from locked_eval.disjoint import (
    SHINGLE_WORDS,
    Hashes,
    Mask,
    Offsets,
    Shingles,
    ShingleSet,
    near_duplicates,
    rows_repeating,
    rows_touched,
    shingle,
)
from locked_eval.splits import (
    EVAL_SPLITS,
    MIN_EVAL_ROWS,
    Codes,
    Corpus,
    PrepareError,
    Split,
    assign,
    find_files,
    scan,
)

FORMAT = 3
MANIFEST_FILE = "manifest.json"
PARTIAL_FOLDER = ".partial"
FOLDERS = {Split.TRAIN: "train", Split.VALIDATION: "val", Split.TEST: "test"}

NUM_SHARDS = 32
MIN_SHARD_ROWS = 8
"""Shards of fewer rows are joined: a crop of context length + 1 tokens must have room in every one."""

TOKENIZER_SAMPLE_BYTES = 500_000_000
"""The tokenizer learns from at most this much: every k-th training document, k as small as it fits."""
_GROUP_BYTES = 4 << 20
_DECODED_TOKENS = 1 << 20
_PROGRESS_SECONDS = 5.0

Rows = npt.NDArray[np.uint16]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asks for."""

    source: Path
    output: Path
    vocab_size: int
    context_length: int
    max_eval_rows: int

    @property
    def row_tokens(self) -> int:
        """Tokens of a row: every position has an input and a target."""
        return self.context_length + 1

    @property
    def shard_tokens(self) -> int:
        """Fewest tokens of a training shard."""
        return MIN_SHARD_ROWS * self.row_tokens


class TrainText(NamedTuple):
    """What was written into the shards of training."""

    num_documents: int
    num_bytes: int
    num_tokens: int
    num_shards: int
    digest: int  # `_add_digest` of every document


class EvalText(NamedTuple):
    """Validation or test, and what was taken from it."""

    num_documents: int
    num_bytes: int
    num_tokens: int
    rows: Rows  # (N, T + 1)
    num_rows_cut: int
    num_rows_in_train: int  # dropped: share a shingle with training
    num_rows_in_validation: int  # dropped: share one with validation (test only)
    num_rows_repeated: int  # dropped: hold a shingle of an earlier row


class _Progress:
    """At most one line every few seconds for a phase."""

    def __init__(self, say: Say, phase: str, total: int) -> None:
        self._say, self._phase, self._total = say, phase, total
        self._done, self._last = 0, time.monotonic()

    def add(self, num_bytes: int) -> None:
        self.reach(self._done + num_bytes, self._total)

    def reach(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        if time.monotonic() - self._last >= _PROGRESS_SECONDS:
            self._last = time.monotonic()
            self._say(f"{self._phase}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")


# ---- documents ----------------------------------------------------------------------------------


def _gather(corpus: Corpus, codes: Codes) -> dict[Split, list[bytes]]:
    """The documents of validation and of test."""
    found: dict[Split, list[bytes]] = {split: [] for split in EVAL_SPLITS}
    for batch in corpus.read(np.isin(codes, EVAL_SPLITS)):
        for number, document in zip(batch.numbers, batch.documents, strict=True):
            found[Split(int(codes[number]))].append(document)
    return found


def _groups(documents: Sequence[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Documents some megabytes at a time, with the byte offset of the first one among all."""
    group: list[bytes] = []
    offset = size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= _GROUP_BYTES:
            yield group, offset
            group, offset, size = [], offset + size, 0
    if group:
        yield group, offset


def _spans(documents: Sequence[bytes]) -> Iterator[tuple[Hashes, Offsets, Offsets]]:
    """Shingles of documents with their byte spans in all of them put together without separators."""
    for group, offset in _groups(documents):
        begins = np.cumsum([offset, *(len(document) for document in group)])
        found = shingle(group)
        yield found.hashes, found.start + begins[found.document], found.end + begins[found.document]


def _shingle_set(documents: Sequence[bytes]) -> ShingleSet:
    return ShingleSet(shingle(group).hashes for group, _ in _groups(documents))


def _distinct(documents: Sequence[bytes], sealed: ShingleSet) -> Mask:
    """`(D,)` mask of the documents that are no near duplicates of sealed ones."""
    near = [np.zeros(0, np.bool_)]
    for group, _ in _groups(documents):
        found = shingle(group)
        near.append(near_duplicates(found, sealed.contains(found.hashes), len(group)))
    return ~np.concatenate(near)


def _clear_training(corpus: Corpus, codes: Codes, sealed: ShingleSet, index: IndexBuilder, say: Say) -> Hashes:
    """Mark training documents that are near duplicates of sealed ones, in `codes`; all of them go into `index`.

    Returns: the sealed hashes that stand in the remaining training documents.
    """
    leaked = np.zeros(len(sealed), np.bool_)
    progress = _Progress(say, "comparing", int(corpus.sizes[codes == Split.TRAIN].sum()))
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


# ---- tokens -------------------------------------------------------------------------------------


def _train_tokenizer(corpus: Corpus, codes: Codes, vocab_size: int) -> bpe.Tokenizer:
    numbers = np.flatnonzero(codes == Split.TRAIN)
    every = -(-int(corpus.sizes[numbers].sum()) // TOKENIZER_SAMPLE_BYTES)
    sample = np.zeros(len(codes), np.bool_)
    sample[numbers[:: max(every, 1)]] = True
    texts = (document.decode("utf-8") for batch in corpus.read(sample) for document in batch.documents)
    return bpe.train(texts, vocab_size)


def _require_bytes(split: str, expected: int, counted: int) -> None:
    if expected != counted:
        raise PrepareError(
            f"the tokens of {split} stand for {counted:,} bytes, its text has {expected:,}; this is a bug"
        )


def _add_digest(digest: int, document: bytes) -> int:
    """Running sum of SHA-256 over documents: the same in whatever order and shards they stand."""
    return (digest + int.from_bytes(hashlib.sha256(document).digest(), "big")) % (1 << 256)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:02d}.bin"


def _write_train(
    corpus: Corpus, codes: Codes, tokenizer: bpe.Tokenizer, folder: Path, shard_tokens: int, say: Say
) -> TrainText:
    """Encode the training documents into shards.

    Args:
        shard_tokens: shorter shards are joined.
    """
    lengths = tokenizer.token_bytes()
    num_documents = num_bytes = counted = digest = 0
    bos = np.array([tokenizer.bos_token], "<u2").tobytes()
    shards = [(0, number) for number in range(NUM_SHARDS)]  # a heap: the shortest comes first
    progress = _Progress(say, "encoding", int(corpus.sizes[codes == Split.TRAIN].sum()))
    with ExitStack() as stack:
        files = [stack.enter_context(_shard(folder, number).open("wb")) for _, number in shards]
        for batch in corpus.read(codes == Split.TRAIN):
            for document, tokens in zip(batch.documents, tokenizer.encode(batch.documents), strict=True):
                num_tokens, number = shards[0]
                files[number].write(bos + tokens.astype("<u2").tobytes())
                heapq.heapreplace(shards, (num_tokens + len(tokens) + 1, number))
                digest = _add_digest(digest, document)
                num_bytes += len(document)
                counted += int(lengths[tokens].sum(dtype=np.int64))
            num_documents += len(batch.documents)
            progress.add(sum(map(len, batch.documents)))
    _require_bytes("train", num_bytes, counted)
    num_tokens = sum(length for length, _ in shards)
    return TrainText(num_documents, num_bytes, num_tokens, _join_short(folder, shards, shard_tokens), digest)


def _join_short(folder: Path, shards: list[tuple[int, int]], shard_tokens: int) -> int:
    """Append every shard that is too short to the next longer one, and number the rest anew.

    Args:
        shards: heap of the tokens and the number of each.

    Returns: how many are left, at least one.
    """
    while len(shards) > 1 and shards[0][0] < shard_tokens:
        num_tokens, number = heapq.heappop(shards)
        more, other = shards[0]
        with _shard(folder, other).open("ab") as file:
            file.write(_shard(folder, number).read_bytes())
        _shard(folder, number).unlink()
        heapq.heapreplace(shards, (num_tokens + more, other))
    for place, number in enumerate(sorted(number for _, number in shards)):
        _shard(folder, number).rename(_shard(folder, place))
    return len(shards)


def _cut_rows(
    split: str, documents: Sequence[bytes], tokenizer: bpe.Tokenizer, row_tokens: int
) -> tuple[Rows, int]:
    """`(N, T + 1)` rows of the documents' stream, and the tokens of all of it."""
    lengths = tokenizer.token_bytes()
    bos = np.array([tokenizer.bos_token], np.uint16)
    pieces: list[Rows] = []
    for group, _ in _groups(documents):
        for tokens in tokenizer.encode(group):
            pieces += [bos, tokens]
    stream = np.concatenate([*pieces, np.zeros(0, np.uint16)])
    counted = int(lengths[stream].sum(dtype=np.int64))
    _require_bytes(split, sum(map(len, documents)), counted)
    num_rows = len(stream) // row_tokens
    return stream[: num_rows * row_tokens].reshape(num_rows, row_tokens), len(stream)


def _choose_rows(
    split: str,
    documents: Sequence[bytes],
    tokenizer: bpe.Tokenizer,
    options: Options,
    in_train: ShingleSet,
    in_validation: ShingleSet,
) -> EvalText:
    """Cut a split into rows and keep those that share no shingle with other text."""
    rows, num_tokens = _cut_rows(split, documents, tokenizer, options.row_tokens)
    num_rows = len(rows)
    edges = np.zeros(num_rows + 1, np.int64)
    np.cumsum(tokenizer.token_bytes()[rows].sum(axis=1, dtype=np.int64), out=edges[1:])
    touched = {"train": np.zeros(num_rows, np.bool_), "validation": np.zeros(num_rows, np.bool_)}
    inside: list[tuple[Hashes, npt.NDArray[np.int32]]] = []
    for hashes, starts, ends in _spans(documents):
        for name, others in (("train", in_train), ("validation", in_validation)):
            shared, _ = others.find(hashes)
            touched[name] |= rows_touched(starts[shared], ends[shared], edges)
        row = np.searchsorted(edges, starts, side="right") - 1
        whole = (row < num_rows) & (ends <= edges[np.minimum(row + 1, num_rows)])
        inside.append((hashes[whole], row[whole].astype(np.int32)))
    clean = ~(touched["train"] | touched["validation"])
    repeated = _repeated(inside, clean)
    kept = np.flatnonzero(clean & ~repeated)
    if len(kept) > options.max_eval_rows:  # never a prefix: text changes over a split
        kept = kept[np.arange(options.max_eval_rows) * len(kept) // options.max_eval_rows]
    return EvalText(
        num_documents=len(documents),
        num_bytes=sum(map(len, documents)),
        num_tokens=num_tokens,
        rows=rows[kept],
        num_rows_cut=num_rows,
        num_rows_in_train=int(touched["train"].sum()),
        num_rows_in_validation=int((touched["validation"] & ~touched["train"]).sum()),
        num_rows_repeated=int(repeated.sum()),
    )


def _repeated(inside: Sequence[tuple[Hashes, npt.NDArray[np.int32]]], clean: Mask) -> Mask:
    """`(N,)` mask of the clean rows that hold a shingle of an earlier clean row."""
    selected = [(hashes[clean[row]], row[clean[row]]) for hashes, row in inside]
    if not selected:
        return np.zeros(len(clean), np.bool_)
    hashes, row = (np.concatenate(column) for column in zip(*selected, strict=True))
    return rows_repeating(hashes, row.astype(np.int64), len(clean))


def _require_rows(split: str, text: EvalText, options: Options) -> None:
    needed = min(MIN_EVAL_ROWS, options.max_eval_rows)
    if len(text.rows) < needed:
        dropped = text.num_rows_cut - len(text.rows)
        raise PrepareError(
            f"not enough text for the {split} split: {len(text.rows)} rows of {options.row_tokens:,} tokens, "
            f"{needed} needed; its {text.num_documents:,} documents of {text.num_bytes:,} bytes gave "
            f"{text.num_rows_cut} rows, of which {dropped} share text with other rows or splits"
        )


# ---- proof --------------------------------------------------------------------------------------


def _row_shingles(rows: Rows, tokenizer: bpe.Tokenizer) -> tuple[Hashes, Offsets]:
    """Shingles of whole words of `(N, T + 1)` rows, and the row of each, from the tokens alone."""
    texts: list[bytes] = []
    row_of: list[int] = []
    cut_before: list[bool] = []
    cut_after: list[bool] = []
    for number, row in enumerate(rows):
        bounds = [0, *np.flatnonzero(row == tokenizer.bos_token).tolist(), len(row)]
        for index, (begin, end) in enumerate(pairwise(bounds)):
            texts.append(tokenizer.decode(row[begin + (index > 0) : end]))
            row_of.append(number)
            cut_before.append(index == 0)
            cut_after.append(end == len(row))
    before, after = np.array(cut_before, np.bool_), np.array(cut_after, np.bool_)
    sizes = np.array([len(text) for text in texts], np.int64)
    found = shingle(texts)
    edge = (found.start == 0) & before[found.document]
    edge |= (found.end == sizes[found.document]) & after[found.document]
    found = found.where(~edge)
    return found.hashes, np.array(row_of, np.int64)[found.document]


class _TrainProof:
    """Reads the training shards back: their shingles, and the digest of the text that they decode to."""

    def __init__(self, folder: Path, tokenizer: bpe.Tokenizer, say: Say) -> None:
        """Args: folder: of the whole data set."""
        self._paths = sorted((folder / FOLDERS[Split.TRAIN]).glob("shard-*.bin"))
        self._tokenizer = tokenizer
        self._lengths = np.load(folder / "tokenizer" / bpe.TOKEN_BYTES_FILE, allow_pickle=False)
        self._progress = _Progress(say, "proving", sum(path.stat().st_size for path in self._paths))
        self.digest = 0

    def shingles(self) -> Iterator[Shingles]:
        """Shingles of all documents; `digest` is complete after the last of them."""
        for path in self._paths:
            yield from self._shard(path)

    def _shard(self, path: Path) -> Iterator[Shingles]:
        bos_token = self._tokenizer.bos_token
        stream = np.memmap(path, "<u2", mode="r")
        begin = 0
        while begin < len(stream):
            end = begin + _DECODED_TOKENS
            while end < len(stream) and stream[end] != bos_token:
                bos = np.flatnonzero(stream[end : end + _DECODED_TOKENS] == bos_token)
                end += int(bos[0]) if len(bos) else _DECODED_TOKENS
            piece = stream[begin:end]
            bounds = [*np.flatnonzero(piece == bos_token).tolist(), len(piece)]
            texts = [self._tokenizer.decode(piece[a + 1 : b]) for a, b in pairwise(bounds)]
            _require_bytes(path.name, sum(map(len, texts)), int(self._lengths[piece].sum(dtype=np.int64)))
            for text in texts:
                self.digest = _add_digest(self.digest, text)
            yield shingle(texts)
            self._progress.add(piece.nbytes)
            begin = end


def _prove(folder: Path, tokenizer: bpe.Tokenizer, train: TrainText, say: Say) -> dict[str, int]:
    """Count what the splits share, from the written files.

    Raises:
        PrepareError: anything is shared, or the shards do not decode to the training documents.
    """
    rows = {split: np.load(folder / FOLDERS[split] / "rows.npy", allow_pickle=False) for split in EVAL_SPLITS}
    hashes, row_of = zip(*(_row_shingles(rows[split], tokenizer) for split in EVAL_SPLITS), strict=True)
    sets = [ShingleSet([found]) for found in hashes]
    shared = {"train_validation": 0, "train_test": 0}
    proof = _TrainProof(folder, tokenizer, say)
    for found in proof.shingles():
        for name, sealed in zip(shared, sets, strict=True):
            shared[name] += len(sealed.find(found.hashes)[0])
    shared["validation_test"] = len(sets[0].find(hashes[1])[0])
    for name, found, numbers, split in zip(("validation", "test"), hashes, row_of, EVAL_SPLITS, strict=True):
        shared[f"{name}_rows"] = int(rows_repeating(found, numbers, len(rows[split])).sum())
    if any(shared.values()):
        raise PrepareError(f"the splits are not disjoint, shared 13-word shingles: {shared}; this is a bug")
    if proof.digest != train.digest:
        raise PrepareError("the shards do not decode to the training documents; this is a bug")
    return shared


def _shared_documents(corpus: Corpus, codes: Codes) -> int:
    """Documents whose words are in two splits, counted from the final assignment."""
    digests = [np.unique(corpus.digests[codes == split]) for split in FOLDERS]
    return sum(map(len, digests)) - len(np.unique(np.concatenate(digests)))


# ---- files --------------------------------------------------------------------------------------


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def _write_meta(folder: Path, options: Options, tokenizer: bpe.Tokenizer, **more: int) -> None:
    _write_json(
        folder / "meta.json",
        {
            "vocab_size": tokenizer.vocab_size,
            "context_length": options.context_length,
            "bos_token": tokenizer.bos_token,
            **more,
        },
    )


def _digests(folder: Path) -> dict[str, dict[str, str | int]]:
    found: dict[str, dict[str, str | int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = {"sha256": sha256, "size_bytes": path.stat().st_size}
    return found


def _split_figures(text: EvalText, lengths: npt.NDArray[np.uint16]) -> dict[str, int]:
    """Counts of validation or test for the manifest."""
    return {
        "documents": text.num_documents,
        "bytes": text.num_bytes,
        "tokens": text.num_tokens,
        "rows": len(text.rows),
        "target_bytes": int(lengths[text.rows[:, 1:]].sum(dtype=np.int64)),
        "rows_cut": text.num_rows_cut,
        "rows_dropped_shared_with_train": text.num_rows_in_train,
        "rows_dropped_shared_with_validation": text.num_rows_in_validation,
        "rows_dropped_repeated": text.num_rows_repeated,
    }


def _describe(name: str, text: EvalText) -> str:
    return (
        f"{name}: {len(text.rows):,} rows of {text.num_rows_cut:,}; dropped for sharing 13 words: "
        f"{text.num_rows_in_train:,} with train, {text.num_rows_in_validation:,} with validation, "
        f"{text.num_rows_repeated:,} with another row"
    )


def _manifest(
    options: Options,
    corpus: Corpus,
    codes: Codes,
    splits: dict[str, dict[str, int]],
    shared: dict[str, int],
    files: dict[str, dict[str, str | int]],
) -> dict[str, object]:
    counts = np.bincount(codes, minlength=len(Split))
    return {
        "format": FORMAT,
        "source": {
            "layout": "pinned" if corpus.is_pinned else "free",
            "files": len(corpus.files),
            "documents": len(codes),
            "bytes": int(corpus.sizes.sum()),
            "sha256": corpus.sha256,
        },
        "parameters": {
            "vocab_size": options.vocab_size,
            "context_length": options.context_length,
            "max_eval_rows": options.max_eval_rows,
            "tokenizer_sample_bytes": TOKENIZER_SAMPLE_BYTES,
        },
        "libraries": {name: version(name) for name in ("rustbpe", "tiktoken")},
        "splits": splits,
        "documents_left_out": {
            "empty": int(counts[Split.EMPTY]),
            "exact_duplicates": int(counts[Split.DUPLICATE]),
            "near_duplicates": int(counts[Split.NEAR_DUPLICATE]),
            "unused": int(counts[Split.UNUSED]),
        },
        "disjoint": {"shingle_words": SHINGLE_WORDS, "shared": shared},
        "files": files,
    }


def _publish(partial: Path, output: Path) -> None:
    """Move the finished files into place; the manifest goes first away and comes last back."""
    (output / MANIFEST_FILE).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
        target = output / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.rename(target)
    partial.rmdir()


# ---- the whole ----------------------------------------------------------------------------------


def _split_documents(options: Options, say: Say) -> tuple[Corpus, Codes]:
    files = find_files(options.source)
    progress = _Progress(say, "reading", 0)
    corpus = scan(files, progress.reach)
    say(f"read {len(corpus.sizes):,} documents, {int(corpus.sizes.sum()):,} bytes, in {len(files):,} files")
    return corpus, assign(corpus, options.row_tokens, options.max_eval_rows)


class _Sealed(NamedTuple):
    """Validation and test, and what they share with training."""

    documents: dict[Split, list[bytes]]
    shingles: dict[Split, ShingleSet]
    in_train: ShingleSet  # those of both that stand in training too


def _drop_near_duplicates(corpus: Corpus, codes: Codes, index: IndexBuilder, say: Say) -> _Sealed:
    """Settle the documents of every split, in `codes`; every one that was read goes into `index`."""
    sealed = _gather(corpus, codes)
    for documents in sealed.values():
        for group, _ in _groups(documents):
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
    return _Sealed(sealed, {Split.VALIDATION: validation, Split.TEST: test}, ShingleSet([leaked]))


def _write_shingles(path: Path, shingles: ShingleSet, in_train: ShingleSet) -> None:
    """Write what only a sealed split has.

    What training has too is no secret: mostly boilerplate, which a program may hold for honest reasons. No row
    has it either.
    """
    secret = shingles.sorted[~in_train.contains(shingles.sorted)]
    np.save(path, secret.astype("<u8"), allow_pickle=False)


def _build(options: Options, folder: Path, say: Say) -> None:
    """Make everything in an empty folder."""
    for name in (*FOLDERS.values(), "shingles", "tokenizer"):
        (folder / name).mkdir()
    corpus, codes = _split_documents(options, say)
    index = IndexBuilder(int(corpus.sizes.sum()))
    sealed = _drop_near_duplicates(corpus, codes, index, say)
    index.save(folder / "shingles" / "corpus.npy")
    del index  # up to a gigabyte

    say(f"training a vocabulary of {options.vocab_size:,}")
    tokenizer = _train_tokenizer(corpus, codes, options.vocab_size)
    tokenizer.save(folder / "tokenizer")
    train = _write_train(corpus, codes, tokenizer, folder / FOLDERS[Split.TRAIN], options.shard_tokens, say)
    if train.num_tokens < options.shard_tokens:
        raise PrepareError(
            f"not enough text for the training split: {train.num_tokens:,} tokens, {options.shard_tokens:,} needed"
        )
    _write_meta(folder / FOLDERS[Split.TRAIN], options, tokenizer)
    say(
        f"train: {train.num_tokens:,} tokens in {train.num_shards} shards, "
        f"{train.num_bytes / train.num_tokens:.3f} bytes per token"
    )

    figures = {
        "train": {
            "documents": train.num_documents,
            "bytes": train.num_bytes,
            "tokens": train.num_tokens,
            "shards": train.num_shards,
        }
    }
    for split in EVAL_SPLITS:
        others = sealed.shingles[Split.VALIDATION] if split is Split.TEST else ShingleSet([])
        name = split.name.lower()
        text = _choose_rows(name, sealed.documents[split], tokenizer, options, sealed.in_train, others)
        _require_rows(name, text, options)
        np.save(folder / FOLDERS[split] / "rows.npy", text.rows.astype("<u2"), allow_pickle=False)
        _write_meta(
            folder / FOLDERS[split], options, tokenizer, num_rows=len(text.rows), num_tokens=text.rows.size
        )
        _write_shingles(folder / "shingles" / f"{FOLDERS[split]}.npy", sealed.shingles[split], sealed.in_train)
        figures[name] = _split_figures(text, tokenizer.token_bytes())
        say(_describe(name, text))
    del sealed
    shared = {"documents": _shared_documents(corpus, codes), **_prove(folder, tokenizer, train, say)}
    if shared["documents"]:
        raise PrepareError(f"{shared['documents']} documents are in two splits; this is a bug")
    say("proven: no document and no 13-word shingle is shared between the splits")
    _write_json(folder / MANIFEST_FILE, _manifest(options, corpus, codes, figures, shared, _digests(folder)))


def prepare(options: Options, say: Say) -> None:
    """Prepare a data set in `options.output`; replaces one that is there.

    Raises:
        PrepareError: the source or the request cannot be used. `options.output` is as it was.
    """
    if not 257 <= options.vocab_size <= 65535:
        raise PrepareError(f"a vocabulary of {options.vocab_size:,} tokens is not between 257 and 65,535")
    if options.context_length < 1 or options.max_eval_rows < 1:
        raise PrepareError("context length and evaluation rows must be at least 1")
    options.output.mkdir(parents=True, exist_ok=True)
    partial = options.output / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _build(options, partial, say)
        _publish(partial, options.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="prepare.py", description="From a folder of documents to tokens and rows."
    )
    parser.add_argument("--source", type=Path, required=True, help="folder of .txt, .md or .parquet files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the data set")
    parser.add_argument(
        "--vocab-size", type=int, required=True, help="tokens, the beginning-of-text token included"
    )
    parser.add_argument(
        "--context-length", type=int, required=True, help="tokens of a row without its last target"
    )
    parser.add_argument("--max-eval-rows", type=int, required=True, help="rows of validation and of test")
    return Options(**vars(parser.parse_args(arguments)))


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = _parse(arguments)
    os.umask(0o022)  # containers read the files under another uid
    try:
        prepare(options, lambda line: print(line, flush=True))
    except PrepareError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write the data set: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
