"""The tokenizer against the Java one that the COCO caption evaluation calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from tests.reference.ptb_sentences import caption_sentences, prose_sentences, script_sentences
from visionkit.text.tokenize import tokenize

# What pycocoevalcap takes away after Java has cut the sentence.
_DROPPED_TEXT = """
    '' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;
"""
_DROPPED = _DROPPED_TEXT.split()
_FIXTURE = Path(__file__).parent / "ptb_tokens.json"


def _java(sentences: list[str], folder: Path) -> list[list[str]]:
    package = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("the full comparison needs `java`, which is not on this machine; the frozen one ran")
    jar = Path(package.__file__).parent / package.STANFORD_CORENLP_3_4_1_JAR
    source = folder / "sentences.txt"
    source.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    done = subprocess.run(
        [*command, "-preserveLines", "-lowerCase", str(source)], capture_output=True, check=True
    )
    lines = done.stdout.decode().split("\n")[: len(sentences)]
    # The scorers split the joined words once more, at every space ("12\u00a01/2").
    return [[word for word in line.split() if word not in _DROPPED] for line in lines]


def test_frozen_sentences_are_cut_as_java_cut_them():
    frozen = json.loads(_FIXTURE.read_text(encoding="utf-8"))
    assert len(frozen) == 1000
    assert sum(not sentence.isascii() for sentence, _ in frozen) > 500
    differ = {
        sentence: (words, tokenize(sentence)) for sentence, words in frozen if tokenize(sentence) != words
    }
    assert differ == {}


@pytest.mark.slow
def test_over_5000_sentences_more_than_995_in_1000_are_cut_as_java_cuts_them(tmp_path):
    groups = {
        "captions": caption_sentences(3000, quirks=0),
        "captions with quirks": caption_sentences(4000, quirks=2),
        "prose": prose_sentences(4000),
        "scripts": script_sentences(4000),
    }
    sentences = [s for group in groups.values() for s in group]
    assert len(sentences) > 12_000
    theirs = dict(zip(sentences, _java(sentences, tmp_path)))
    differ = {name: [s for s in group if tokenize(s) != theirs[s]] for name, group in groups.items()}
    listing = "\n".join(
        f"{s!r}\n  java {theirs[s]}\n  ours {tokenize(s)}" for group in differ.values() for s in group
    )
    print(f"{ {name: f'{len(d)} of {len(groups[name])}' for name, d in differ.items()} } differ\n{listing}")
    assert differ["captions"] == []
    assert len(differ["captions with quirks"]) <= 0.001 * 4000
    assert len(differ["scripts"]) <= 0.01 * 4000
    assert sum(map(len, differ.values())) < 0.005 * len(sentences)


@pytest.mark.slow
def test_every_character_is_cut_as_java_cuts_it(tmp_path):
    # Assigned characters, without line ends (Java counts lines by them) and halves of pairs.
    ends = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    characters = [c for c in characters if c not in ends and unicodedata.category(c) not in ("Cn", "Co")]
    patterns = ("QaC{}Zc", "ab{}", "xy {} zw", "1{}2")
    sentences = [pattern.replace("{}", c) for c in characters for pattern in patterns]
    assert len(sentences) > 500_000
    theirs = _java(sentences, tmp_path)
    differ = [s for s, words in zip(sentences, theirs) if tokenize(s) != words]
    assert len(theirs) == len(sentences)
    assert differ == []


def freeze(path: Path = _FIXTURE) -> None:
    """Write the frozen sentences anew: `python -c "from tests.reference.test_ptb_tokenizer import freeze;
    freeze()"`."""
    agreed: list[list[object]] = []
    for sentences in (
        caption_sentences(100, quirks=0, seed=7) + caption_sentences(500, quirks=3, seed=7),
        script_sentences(600, seed=7),
    ):
        pairs = zip(sentences, _java(sentences, Path(os.environ.get("TMPDIR", "/tmp"))))
        agreed += [[s, words] for s, words in pairs if tokenize(s) == words][:500]
    lines = ",\n".join(json.dumps(pair, ensure_ascii=False) for pair in agreed)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
