"""The tokenizer against the Java one that the COCO caption evaluation calls."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.reference.ptb_sentences import caption_sentences, prose_sentences
from visionkit.data.tokenize import tokenize

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
    return [[word for word in line.rstrip().split(" ") if word and word not in _DROPPED] for line in lines]


def test_frozen_sentences_are_cut_as_java_cut_them():
    frozen = json.loads(_FIXTURE.read_text(encoding="utf-8"))
    assert len(frozen) == 500
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
    }
    sentences = [s for group in groups.values() for s in group]
    assert len(sentences) > 8000
    theirs = dict(zip(sentences, _java(sentences, tmp_path)))
    differ = {name: [s for s in group if tokenize(s) != theirs[s]] for name, group in groups.items()}
    listing = "\n".join(
        f"{s!r}\n  java {theirs[s]}\n  ours {tokenize(s)}" for group in differ.values() for s in group
    )
    print(f"{ {name: f'{len(d)} of {len(groups[name])}' for name, d in differ.items()} } differ\n{listing}")
    assert differ["captions"] == []
    assert len(differ["captions with quirks"]) <= 0.002 * 4000
    assert sum(map(len, differ.values())) < 0.005 * len(sentences)


def freeze(path: Path = _FIXTURE) -> None:
    """Write the frozen sentences anew: `python -c "from tests.reference.test_ptb_tokenizer import freeze;
    freeze()"`."""
    sentences = caption_sentences(100, quirks=0, seed=7) + caption_sentences(500, quirks=3, seed=7)
    pairs = list(zip(sentences, _java(sentences, Path(os.environ.get("TMPDIR", "/tmp")))))
    agreed = [[s, words] for s, words in pairs if tokenize(s) == words]
    path.write_text(json.dumps(agreed[:500], ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
