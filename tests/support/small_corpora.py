"""Small corpora of random prose, and what a preparation makes of them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np

from locked_eval.preparation import prepare as program
from locked_eval.preparation.options import Options
from locked_eval.preparation.tokenizer import Tokenizer

V, T, ROWS = 400, 64, 200
MULTIBYTE = ["über", "naïve", "Привет", "漢字仮名", "🙂🙃", "…", "“quoted”"]


class Writer:
    """Random prose with a fixed seed: no two texts share 13 words unless they are planted."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        letters = list("etaoinshrdlucmfw")
        self.lexicon = ["".join(self.random.choice(letters, size)) for size in self.random.integers(2, 5, 400)]
        self.lexicon += MULTIBYTE

    def words(self, count: int) -> list[str]:
        return [self.lexicon[i] for i in self.random.integers(0, len(self.lexicon), count)]

    def text(self, count: int) -> str:
        words = self.words(count)
        return " ".join(word + ("." if i % 11 == 10 else "") for i, word in enumerate(words)) + "\n"


def put(folder: Path, texts: dict[str, str]) -> Path:
    """Write texts by their path in a folder; returns the folder."""
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return folder


def options(source: Path, output: Path, **changes: int) -> Options:
    """A request with small sizes."""
    values = {"vocab_size": V, "context_length": T, "max_eval_rows": ROWS, **changes}
    return Options(source=source, output=output, **values)


def run(source: Path, output: Path, **changes: int) -> dict:
    """Prepare a data set; returns its manifest."""
    program.prepare(options(source, output, **changes), lambda line: None)
    return json.loads((output / "manifest.json").read_text())


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run_program(source: Path, output: Path, vocab: int = V, context: int = T, rows: int = ROWS) -> int:
    """Run the command line; returns the exit code."""
    arguments = ["--source", source, "--output", output, "--vocab-size", vocab]
    arguments += ["--context-length", context, "--max-eval-rows", rows]
    return program.main([str(argument) for argument in arguments])


def require_one_error(capsys, pattern: str) -> None:
    """Check that stderr is one line with an error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.match(rf"error: .*{pattern}", lines[0]), lines[0]


def word_list(text: bytes) -> list[bytes]:
    """Words by another method than the program's: a regular expression over characters."""
    own = "[\u3000-\ud7ff\ue000]"
    return [
        w.lower().encode() for w in re.findall(rf"{own}|(?:[a-zA-Z0-9\x80-\U0010ffff](?<!{own}))+", text.decode())
    ]


def shards_of(prepared: Path) -> list[np.ndarray]:
    """Tokens of every training shard."""
    return [np.fromfile(path, "<u2") for path in sorted((prepared / "train").glob("shard-*.bin"))]


def shard_documents(shard: np.ndarray, tokens: Tokenizer) -> list[bytes]:
    """Documents of one shard."""
    begins = np.flatnonzero(shard == tokens.bos_token)
    assert begins[0] == 0
    return [tokens.decode(piece[1:]) for piece in np.split(shard, begins[1:])]


def train_documents(prepared: Path, tokens: Tokenizer) -> list[bytes]:
    """Documents of all training shards."""
    return [document for shard in shards_of(prepared) for document in shard_documents(shard, tokens)]


def decoded_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """The wrong table: a part of a character counts as the three bytes of a replacement mark."""
    pieces = [tokenizer.decode(np.array([token], np.uint16)) for token in range(tokenizer.bos_token)]
    return np.array([*(len(piece.decode("utf-8", "replace").encode()) for piece in pieces), 0], np.uint16)
