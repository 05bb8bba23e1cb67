"""From a folder of documents to tokens, rows and byte lengths. Runs in a container without network:

python -I prepare.py --source /source --output /output --vocab-size V --context-length T --max-eval-rows N

/output
├── train/shard-00.bin    little-endian uint16: BOS document BOS document …; 32 shards of about equal length
├── train/meta.json
├── val/rows.npy          (N, T + 1) uint16, never overlapping, at an even stride over the whole split
├── val/meta.json
├── test/rows.npy         the same; sealed: for a person to read, never for a decision
├── test/meta.json
├── shingles/val.npy      sorted uint64 hashes of all 13-word shingles of the validation documents
├── shingles/test.npy     the same of the test documents; both without the shingles that the training text has
├── shingles/corpus.npy   index of all documents, to keep their text out of logs: see `index.py`
├── tokenizer/            ranks.txt, pattern.txt, token_bytes.npy: see `tokenizer.py`
└── manifest.json         SHA-256 and size of every file above, parameters, counts; written last

A data set is only published if it is proven disjoint (`proof.py`): no document, by the hash of its words, is in
two splits, no 13-word shingle is in two rows or in a row and the training text, and token byte lengths add up to
the raw size of every split.

The same source, parameters and library versions give the same bytes. Memory stays below about 4 GB whatever the
source; the training text is streamed, only validation and test are held. If the source cannot be used, the program
ends with code 2 and one line `error: …` on stderr, and leaves nothing but an empty `/output`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # a script: the folder that holds `locked_eval/` joins the path, this one leaves it
    _here = Path(__file__).resolve()
    sys.path[:] = [str(_here.parents[2]), *(one for one in sys.path if Path(one).resolve() != _here.parent)]

import numpy as np

from locked_eval.preparation import tokenizer as bpe
from locked_eval.preparation.documents import EVAL_SPLITS, Codes, Corpus, PrepareError, Split, find_files, scan
from locked_eval.preparation.duplicates import Sealed, drop_near_duplicates
from locked_eval.preparation.index import IndexBuilder
from locked_eval.preparation.options import Options, parse
from locked_eval.preparation.progress import Progress, Say
from locked_eval.preparation.proof import prove, require_no_shared_documents
from locked_eval.preparation.publish import (
    FOLDERS,
    Figures,
    eval_figures,
    publish,
    train_figures,
    write_manifest,
    write_meta,
    write_shingles,
)
from locked_eval.preparation.rows import EvalText, choose_rows
from locked_eval.preparation.shards import TrainText, write_train
from locked_eval.preparation.shingles import ShingleSet
from locked_eval.preparation.splits import assign

PARTIAL_FOLDER = ".partial"


def prepare(options: Options, say: Say) -> None:
    """Prepare a data set in `options.output`; replaces one that is there.

    Raises:
        PrepareError: the source or the request cannot be used. `options.output` is as it was.
    """
    options.check()
    options.output.mkdir(parents=True, exist_ok=True)
    partial = options.output / PARTIAL_FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _build(options, partial, say)
        publish(partial, options.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _build(options: Options, folder: Path, say: Say) -> None:
    """Make all files in an empty folder."""
    for name in (*FOLDERS.values(), "shingles", "tokenizer"):
        (folder / name).mkdir()
    corpus, codes = _split_documents(options, say)
    sealed = _deduplicate(corpus, codes, folder, say)
    say(f"training a vocabulary of {options.vocab_size:,}")
    tokenizer = _train_tokenizer(corpus, codes, options.vocab_size)
    tokenizer.save(folder / "tokenizer")
    train = _write_train(corpus, codes, tokenizer, options, folder, say)
    figures: Figures = {"train": train_figures(train)}
    for split in EVAL_SPLITS:
        figures[split.name.lower()] = _write_eval(split, sealed, tokenizer, options, folder, say)
    del sealed
    shared = {
        "documents": require_no_shared_documents(corpus, codes),
        **prove(folder, tokenizer, train, say),
    }
    say("proven: no document and no 13-word shingle is shared between the splits")
    write_manifest(folder, options, corpus, codes, figures, shared)


def _split_documents(options: Options, say: Say) -> tuple[Corpus, Codes]:
    files = find_files(options.source)
    progress = Progress(say, "reading", 0)
    corpus = scan(files, progress.reach)
    say(f"read {len(corpus.sizes):,} documents, {int(corpus.sizes.sum()):,} bytes, in {len(files):,} files")
    return corpus, assign(corpus, options.row_tokens, options.max_eval_rows)


def _deduplicate(corpus: Corpus, codes: Codes, folder: Path, say: Say) -> Sealed:
    index = IndexBuilder(int(corpus.sizes.sum()))  # up to a gigabyte, until this returns
    sealed = drop_near_duplicates(corpus, codes, index, say)
    index.save(folder / "shingles" / "corpus.npy")
    return sealed


def _train_tokenizer(corpus: Corpus, codes: Codes, vocab_size: int) -> bpe.Tokenizer:
    numbers = np.flatnonzero(codes == Split.TRAIN)
    every = -(-int(corpus.sizes[numbers].sum()) // bpe.SAMPLE_BYTES)
    sample = np.zeros(len(codes), np.bool_)
    sample[numbers[:: max(every, 1)]] = True
    texts = (document.decode("utf-8") for batch in corpus.read(sample) for document in batch.documents)
    return bpe.train(texts, vocab_size)


def _write_train(
    corpus: Corpus, codes: Codes, tokenizer: bpe.Tokenizer, options: Options, folder: Path, say: Say
) -> TrainText:
    target = folder / FOLDERS[Split.TRAIN]
    train = write_train(corpus, codes, tokenizer, target, options.shard_tokens, say)
    write_meta(target, options, tokenizer)
    say(
        f"train: {train.num_tokens:,} tokens in {train.num_shards} shards, "
        f"{train.num_bytes / train.num_tokens:.3f} bytes per token"
    )
    return train


def _write_eval(
    split: Split, sealed: Sealed, tokenizer: bpe.Tokenizer, options: Options, folder: Path, say: Say
) -> dict[str, int]:
    """Write the rows and shingles of validation or test; returns the counts for the manifest."""
    others = sealed.shingles[Split.VALIDATION] if split is Split.TEST else ShingleSet([])
    name, target = split.name.lower(), folder / FOLDERS[split]
    text = choose_rows(name, sealed.documents[split], tokenizer, options, sealed.in_train, others)
    np.save(target / "rows.npy", text.rows.astype("<u2"), allow_pickle=False)
    write_meta(target, options, tokenizer, num_rows=len(text.rows), num_tokens=text.rows.size)
    write_shingles(folder / "shingles" / f"{FOLDERS[split]}.npy", sealed.shingles[split], sealed.in_train)
    say(_describe(name, text))
    return eval_figures(text, tokenizer.token_bytes())


def _describe(name: str, text: EvalText) -> str:
    return (
        f"{name}: {len(text.rows):,} rows of {text.num_rows_cut:,}; dropped for sharing 13 words: "
        f"{text.num_rows_in_train:,} with train, {text.num_rows_in_validation:,} with validation, "
        f"{text.num_rows_repeated:,} with another row"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    options = parse(arguments)
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
