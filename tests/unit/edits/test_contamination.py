"""Sealed text in a candidate's files: every form of it is found, and honest code is left alone."""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import lzma
import random
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from locked_eval.preparation.shingles import shingle
from runner.edits.contamination import SealedText, find
from runner.edits.opaque import MAX_OPAQUE_BYTES

ROOT = Path(__file__).resolve().parents[3]

VALIDATION = (
    "Mister Speaker, the harvest of the northern counties was gathered in good order this year, and the granaries "
    "stand full; yet the price of bread has risen by a third since Easter, which no farmer of my acquaintance can "
    "explain and every miller denies."
)
TEST = (
    "When the second ferry left the quay at Kirkwall it carried forty sheep, two schoolteachers and a piano that "
    "had been promised to the church of Saint Olaf eleven winters before the roof was mended."
)
SECRETS = {"harvest", "granaries", "farmer", "miller", "ferry", "sheep"}
TOKENS = [bytes([value]) for value in range(256)]
TOKENS += sorted({b" " + word.encode() for word in (VALIDATION + " " + TEST).split()}) * 3


def hashes(text: str) -> np.ndarray:
    return np.unique(shingle([text.encode()]).hashes)


SEALED = SealedText(hashes(VALIDATION), hashes(TEST), TOKENS)


def token_ids(text: str) -> list[int]:
    return [TOKENS.index(b" " + word.encode()) for word in text.split()]


def workload() -> dict[str, bytes]:
    return {str(path.relative_to(ROOT)): path.read_bytes() for path in sorted((ROOT / "workload").rglob("*.py"))}


def added(text: str, path: str = "workload/train.py") -> str | None:
    """What is found when a text is put behind the file."""
    before = workload()
    return find(before, {**before, path: before.get(path, b"") + b"\n" + text.encode()}, SEALED)


def refused(text: str, path: str = "workload/train.py") -> str:
    reason = added(text, path)
    assert reason is not None
    assert "contains validation or test text" in reason
    assert not SECRETS & set(reason.replace(",", " ").split())  # a reason goes to the proposer: it never quotes
    return reason


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


CODE = base64.b64encode(zlib.compress(VALIDATION.encode())).decode()
WORDS = VALIDATION.split()

FORMS = {
    "a string": f"X = {VALIDATION!r}",
    "a docstring over lines": '"""\n' + "\n".join(pieces(VALIDATION, 50)) + '\n"""'.replace("\n\n", "\n"),
    "a comment": f"# {VALIDATION}",
    "a comment over lines": "\n".join("# " + " ".join(WORDS[start : start + 6]) for start in range(0, 30, 6)),
    "numbered comment lines": "\n".join(f"# {n}: {word}" for n, word in enumerate(WORDS)),
    "pieces side by side": "X = (" + "\n".join(map(repr, pieces(VALIDATION, 7))) + ")",
    "pieces added": "X = " + " + ".join(map(repr, pieces(VALIDATION, 5))),
    "a list of words": f"X = ' '.join({WORDS!r})",
    "a list of letters": f"X = ''.join({list(VALIDATION)!r})",
    "a dictionary of pieces": f"X = {dict(enumerate(pieces(VALIDATION, 9)))!r}",
    "statements": "x = ''\n" + "\n".join(f"x += {piece!r}" for piece in pieces(VALIDATION, 11)),
    "keys between phrases": "\n".join(f"x['k{n}'] = {' '.join(WORDS[n : n + 4])!r}" for n in range(0, 32, 4)),
    "an f-string": "X = f'" + VALIDATION.replace(" ", "{SPACE}") + "'",
    "backslash n": "X = '" + VALIDATION.replace(" ", "\\n") + "'",
    "hexadecimal escapes": "X = '" + "".join(f"\\x{ord(one):02x}" for one in VALIDATION) + "'",
    "octal escapes": "X = '" + "".join(f"\\{ord(one):03o}" for one in VALIDATION) + "'",
    "escapes in a comment": "# " + "".join(f"\\x{ord(one):02x}" for one in VALIDATION),
    "percent escapes": "X = '" + "".join(f"%{ord(one):02X}" for one in VALIDATION) + "'",
    "bytes": f"X = {VALIDATION.encode()!r}",
    "identifiers": "class " + "_".join(word.strip(",.;") for word in WORDS) + ": pass",
    "reversed": f"X = {VALIDATION[::-1]!r}",
    "reversed words": f"X = {' '.join(WORDS[::-1])!r}",
    "rot13": f"X = {codecs.encode(VALIDATION, 'rot13')!r}",
    "base16": f"X = {VALIDATION.encode().hex()!r}",
    "base32": f"X = {base64.b32encode(VALIDATION.encode()).decode()!r}",
    "base64": f"X = {base64.b64encode(VALIDATION.encode()).decode()!r}",
    "base64 for addresses": f"X = {base64.urlsafe_b64encode(zlib.compress(VALIDATION.encode())).decode()!r}",
    "base85": f"X = {base64.b85encode(VALIDATION.encode()).decode()!r}",
    "ascii85": f"X = {base64.a85encode(VALIDATION.encode()).decode()!r}",
    "ascii85 with frame": f"X = {base64.a85encode(VALIDATION.encode(), adobe=True)!r}",
    "zlib": f"X = {zlib.compress(VALIDATION.encode())!r}",
    "base64 of zlib": f"X = {CODE!r}",
    "base64 of gzip": f"X = {base64.b64encode(gzip.compress(VALIDATION.encode())).decode()!r}",
    "base64 of bz2": f"X = {base64.b64encode(bz2.compress(VALIDATION.encode())).decode()!r}",
    "base64 of xz": f"X = {base64.b64encode(lzma.compress(VALIDATION.encode())).decode()!r}",
    "base64 of lzma": f"X = {base64.b64encode(lzma.compress(VALIDATION.encode(), lzma.FORMAT_ALONE)).decode()!r}",
    "base64 of deflate": f"X = {base64.b64encode(zlib.compress(VALIDATION.encode())[2:-4]).decode()!r}",
    "base85 of zlib": f"X = {base64.b85encode(zlib.compress(VALIDATION.encode())).decode()!r}",
    "base64 reversed": f"X = {CODE[::-1]!r}",
    "base64 in pieces": "X = [" + ", ".join(map(repr, pieces(CODE, 6))) + "]",
    "base64 in pieces behind another string": "X = ['float32', " + ", ".join(map(repr, pieces(CODE, 16))) + "]",
    "base64 over lines": 'X = """\n' + "\n".join(pieces(CODE, 60)) + '\n"""',
    "base64 in a comment": "\n".join("# " + piece for piece in pieces(CODE, 60)),
    "base64 of pieces": "X = " + repr([base64.b64encode(one.encode()).decode() for one in pieces(VALIDATION, 40)]),
    "base64 twice": f"X = {base64.b64encode(base64.b64encode(VALIDATION.encode())).decode()!r}",
    "base64 of zlib of base16 of zlib": "X = "
    + repr(base64.b64encode(zlib.compress(zlib.compress(VALIDATION.encode()).hex().encode())).decode()),
    "bytes in pieces": "X = b''.join([" + ", ".join(repr(one.encode()) for one in pieces(VALIDATION, 5)) + "])",
    "a list of bytes": f"X = {list(VALIDATION.encode())!r}",
    "bytes as hexadecimal numbers": "X = [" + ", ".join(map(hex, VALIDATION.encode())) + "]",
    "code points": f"X = ''.join(map(chr, {[ord(one) for one in VALIDATION]!r}))",
    "packed numbers": f"X = {list(zlib.compress(VALIDATION.encode()))!r}",
    "bits": f"X = {np.unpackbits(np.frombuffer(VALIDATION.encode(), np.uint8)).tolist()!r}",
    "words of two bytes": f"X = np.array({np.frombuffer(VALIDATION.encode()[:200], '<u2').tolist()!r})",
    "words of eight bytes": f"X = {np.frombuffer(VALIDATION.encode()[:200], '<u8').tolist()!r}",
    "words of eight bytes, big endian": f"X = {np.frombuffer(VALIDATION.encode()[:200], '>u8').tolist()!r}",
    "one huge number": f"X = {int.from_bytes(VALIDATION.encode(), 'big')}",
    "one huge hexadecimal number": f"X = {int.from_bytes(VALIDATION.encode(), 'little'):#x}",
    "token ids": f"X = np.array({token_ids(VALIDATION)!r}, np.uint16)",
    "token ids in rows": f"X = [{token_ids(VALIDATION)[:21]!r},\n     {token_ids(VALIDATION)[21:]!r}]",
    "token ids in calls": "X = [" + ", ".join(f"np.uint16({one})" for one in token_ids(VALIDATION)) + "]",
    "token ids as floats": f"X = {[float(one) for one in token_ids(VALIDATION)]!r}",
    "token ids in a string": f"X = '{' '.join(map(str, token_ids(VALIDATION)))}'.split()",
    "token ids in a comment": f"# {', '.join(map(str, token_ids(VALIDATION)))}",
    "token ids reversed": f"X = {token_ids(VALIDATION)[::-1]!r}",
    "token ids as characters": f"X = {''.join(map(chr, token_ids(VALIDATION)))!r}",
    "token ids as bytes": f"X = {struct.pack(f'<{len(WORDS)}H', *token_ids(VALIDATION))!r}",
    "token ids, base64 of zlib": "X = "
    + repr(base64.b64encode(zlib.compress(np.array(token_ids(VALIDATION), '>u2').tobytes())).decode()),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_sealed_text_is_found(form):
    reason = refused(FORMS[form])
    assert reason.startswith(("workload/train.py ", "workload/ "))


@pytest.mark.parametrize("form", ["a string", "base64 of zlib", "token ids", "token ids in a string", "rot13"])
def test_other_files_than_python_are_read_too(form):
    assert refused(FORMS[form], "workload/notes.txt").startswith("workload/notes.txt ")


@pytest.mark.parametrize("form", ["a string", "base64 over lines", "token ids", "hexadecimal escapes"])
def test_python_that_does_not_parse_is_read_as_text(form):
    refused(FORMS[form] + "\nthis is not (", "workload/broken.py")


def test_no_reason_tells_which_split_it_was():
    assert refused(f"# {TEST}") == refused(f"# {VALIDATION}")


def test_thirteen_words_are_enough_and_twelve_are_not():
    refused("# " + " ".join(WORDS[5:18]))
    assert added("# " + " ".join(WORDS[5:17])) is None


def test_a_phrase_over_two_files_is_found():
    before = workload()
    halves = {
        "workload/a.py": f"X = {' '.join(WORDS[:9])!r}\n".encode(),
        "workload/ab.py": f"Y = {' '.join(WORDS[9:18])!r}\n".encode(),
    }
    reason = find(before, {**before, **halves}, SEALED)
    assert reason is not None
    assert reason.startswith("workload/ contains validation or test text")


def test_a_phrase_whose_second_half_comes_later_is_found():
    before = {**workload(), "workload/a.py": f"X = {' '.join(WORDS[:9])!r}\n".encode()}
    assert find(before, {**before, "workload/ab.py": f"Y = {' '.join(WORDS[9:18])!r}\n".encode()}, SEALED)


def test_text_that_was_there_before_is_not_refused_again():
    before = {**workload(), "workload/old.py": f"# {VALIDATION}\n".encode()}
    assert find(before, {**before, "workload/old.py": before["workload/old.py"] + b"X = 1\n"}, SEALED) is None
    moved = {path: data for path, data in before.items() if path != "workload/old.py"}
    assert find(before, {**moved, "workload/new.py": before["workload/old.py"]}, SEALED) is None
    assert find(before, {**before, "workload/old.py": f"# {TEST}\n".encode()}, SEALED) is not None


def test_deleting_sealed_text_passes():
    before = {**workload(), "workload/old.py": f"# {VALIDATION}\n".encode()}
    assert find(before, workload(), SEALED) is None


# Must not fire.

LICENSE = (
    '''"""
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation
the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software.
"""
'''
    * 40
)

TABLE = "\n".join(
    f'    "run_{n}": dict(lr={3e-4 * n:.2e}, width={64 * n}, heads={n}, betas=(0.9, 0.95), warmup={10 * n}),'
    for n in range(60)
)

HONEST = {
    "a table of settings": f"TABLE = {{\n{TABLE}\n}}",
    "a long license": LICENSE,
    "rulers": ("# " + "-" * 100 + "\n# " + "=" * 100 + "\n") * 200,
    "shapes": ("# (B, T, C) @ (C, 4 * C) -> (B, T, 4 * C); softmax(q @ k.transpose(-2, -1) / d_k ** 0.5)\n") * 60,
    "a kernel": f'KERNEL = """\n{"__global__ void f(float *x, int n) { int i = f(x); x[i] *= 2.0; }" * 60}"""',
    "a small lookup table": f"COEFFICIENTS = {[[3.4445, -4.7750, 2.0315]] * 40!r}",
    "counting": f"WINDOWS = {list(range(256))!r}",
    "a hash": "SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
    "other prose": "# " + " ".join(random.Random(1).choices(WORDS, k=400)),
    "German": "# Größe der Übergänge für die Lernrate, überprüft für ähnliche Läufe\n" * 100,
}  # fmt: skip


@pytest.mark.parametrize("kind", HONEST)
def test_honest_additions_pass(kind):
    assert added(HONEST[kind]) is None


def test_the_workload_itself_passes():
    assert find({}, workload(), SEALED) is None
    assert find(workload(), workload(), SEALED) is None


@pytest.mark.parametrize(
    "folder",
    [
        "runner",
        "locked_eval/container",
        "locked_eval/judging",
        "locked_eval/preparation",
        "runner/edits",
        "runner/sandbox/images",
        "runner/report",
    ],
)
def test_the_controllers_own_source_would_pass(folder):
    files = {f"workload/{path.name}": path.read_bytes() for path in (ROOT / folder).glob("*.py")}
    assert find({}, files, SEALED) is None


def test_formatting_and_deleting_pass():
    before = workload()
    after = {path: data.replace(b"    ", b"\t") for path, data in before.items()}
    assert find(before, after, SEALED) is None
    after.pop("workload/optim.py")
    assert find(before, after, SEALED) is None


def test_empty_splits_and_empty_files_pass():
    nothing = np.zeros(0, np.uint64)
    assert find({}, {"workload/a.py": b"", **workload()}, SealedText(nothing, nothing, [])) is None
    assert find(workload(), {}, SEALED) is None


# Opaque data.

NOISE = random.Random(7).randbytes(9000)

OPAQUE = {
    "base64": f"X = {base64.b64encode(NOISE).decode()!r}",
    "base64 in short pieces": f"X = {pieces(base64.b64encode(NOISE).decode(), 6)!r}",
    "base16": f"X = {NOISE.hex()!r}",
    "base85": f"X = {base64.b85encode(NOISE).decode()!r}",
    "bytes": f"X = {NOISE!r}",
    "numbers": f"X = {list(NOISE)!r}",
    "weights": f"X = {np.random.default_rng(0).normal(size=1000).tolist()!r}",
    "named numbers": "\n".join(f"w{n} = {value}" for n, value in enumerate(NOISE)),
    "numbers in a string": f"X = '{' '.join(map(str, NOISE))}'",
    "a comment": "\n".join("# " + piece for piece in pieces(base64.b64encode(NOISE).decode(), 90)),
    "Chinese characters": "X = '" + "".join(chr(0x4E00 + 17 * value) for value in NOISE) + "'",
}  # fmt: skip


@pytest.mark.parametrize("kind", OPAQUE)
def test_opaque_data_above_the_limit_is_refused_with_the_limit_and_a_remedy(kind):
    reason = added(OPAQUE[kind])
    assert reason is not None
    assert f"at most {MAX_OPAQUE_BYTES:,} are allowed" in reason
    assert "workload/train.py" in reason
    assert "compute or learn them" in reason


def test_opaque_data_of_another_file_is_refused_too():
    assert "allowed" in (added(NOISE.hex(), "workload/table.json") or "")


def test_opaque_data_is_counted_over_files_and_over_time():
    before = workload()
    half = base64.b64encode(NOISE).decode()[: MAX_OPAQUE_BYTES * 2 // 3]
    once = {**before, "workload/a.py": f"X = {half!r}\n".encode()}
    assert find(before, once, SEALED) is None
    twice = {**once, "workload/b.py": f"X = {half[::-1]!r}\n".encode()}
    assert find(once, twice, SEALED) is not None


def test_a_tree_that_held_as_much_before_may_change():
    before = {**workload(), "workload/a.py": OPAQUE["base64"].encode()}
    assert find(before, {**before, "workload/model.py": before["workload/model.py"] + b"# done\n"}, SEALED) is None


# Hostile input.


def test_a_bomb_is_refused_and_not_unpacked():
    bomb = base64.b64encode(zlib.compress(zlib.compress(bytes(1 << 26), 9), 9)).decode()
    began = time.monotonic()
    reason = added(f"X = {bomb!r}")
    assert reason is not None
    assert "unpacks to more than 8 MiB" in reason
    assert time.monotonic() - began < 5


HOSTILE = {
    "digits": "1" * 200_000,
    "digits and dots": "1." * 100_000,
    "short runs of numbers": "1 2 3 4 5 6 a " * 15_000,
    "letters": "a" * 200_000,
    "upper and lower": "aB" * 100_000,
    "capitals": "Ab" * 100_000 + "_!",
    "quotes": "'" * 200_000,
    "parentheses": "(" * 200_000,
    "underscores": "_" * 200_000,
    "hashes": "#" * 200_000,
    "backslashes": "\\x4" * 60_000,
    "base64 frames": "=A" * 100_000,
    "empty lines": "\n" * 200_000,
    "exponents": "1e1_" * 50_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("path", ["workload/x.py", "workload/x.txt"])
def test_no_text_makes_the_scan_slow(kind, path):
    began = time.process_time()
    find({}, {path: HOSTILE[kind].encode()}, SEALED)
    assert time.process_time() - began < 3


def test_many_small_codes_do_not_make_the_scan_slow():
    rng = random.Random(3)
    files = {
        f"workload/{name}.py": "\n".join(f"x = {rng.randbytes(27).hex()!r}" for _ in range(3500)).encode()
        for name in "abcdefgh"
    }
    began = time.process_time()
    assert find({}, files, SEALED) is not None
    assert time.process_time() - began < 5


def test_bytes_that_are_not_utf_8_are_read():
    data = b"\xff\xfe " + VALIDATION.encode()
    assert find({}, {"workload/x.txt": data}, SEALED) is not None
    assert find({}, {"workload/x.py": data}, SEALED) is not None
