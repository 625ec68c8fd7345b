"""Sentences to words: the conventions one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionkit.text.ptb_characters import shadow
from visionkit.text.tokenize import tokenize


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A man's dog doesn't bark.", "a man 's dog does n't bark"),
        ("Two people, they're here; WON'T stop!", "two people they 're here wo n't stop"),
        ("cannot gonna lemme 'tis", "can not gon na lem me 't is"),
        ("a T-shirt, a 3-year-old's x-ray", "a t-shirt a 3-year-old 's x-ray"),
        ("the boys' room at 5 o'clock", "the boys room at 5 o'clock"),
        ("Mr. Smith of St. Louis in the U.S. at 5 p.m.", "mr. smith of st. louis in the u.s. at 5 p.m."),
        ("a sign (red) [left]", "a sign -lrb- red -rrb- -lsb- left -rsb-"),
        ("$5.00, 50% off #5 AT&T salt&pepper", "$ 5.00 50 % off # 5 at&t salt & pepper"),
        ("“smart” it’s a – b … café ½", "smart it 's a b café 1/2"),
        ("rock 'n' roll of the '90s and the 60's", "rock 'n' roll of the '90s and the 60 's"),
        ("green grass.The dog", "green grass.the dog"),
        ("black/white w/ hat", "black/white w / hat"),
        ("No!! ?", "no !!"),
        ("dog 😀 &amp; cat", "dog & cat"),
        ("un cafe\u0301 noir", "un cafe\u0301 noir"),
        ("एक लड़का खेल रहा है।", "एक लड़का खेल रहा है ।"),
        ("สุนัข ที่ นี่, مَرْحَبًا שָׁלוֹם", "สุนัข ที่ นี่ مَرْحَبًا שָׁלוֹם"),
        ("a 👍🏽 sign, A ❤️ on 👩‍👩‍👧 at 1️⃣ 🇩🇪", "a sign a ❤ on at 1"),
        (
            "l’arrière-plan, un chef-d'œuvre, un niño/niña, å. 5 m²",
            "l’arrière-plan un chef-d'œuvre un niño / niña å 5 m ²",
        ),
        ("don’t it’s ’90s", "do n't it 's ’90s"),
        ("a\u2028b\x85c\x0bd\x00e", "a b c d e"),
        ("", ""),
        (" \n\t", ""),
        ("... -- '' .", ""),
    ],
)
def test_conventions(sentence, words):
    assert tokenize(sentence) == words.split()


@given(st.text(max_size=80))
def test_any_text_gives_words_without_spaces_or_capitals(text):
    for token in tokenize(text):
        assert token
        assert not any(c.isspace() for c in token)
        assert token == token.lower()


def test_a_very_long_sentence_takes_linear_time():
    assert len(tokenize("a dog-" * 20_000)) > 20_000
    assert len(tokenize("a.b-" * 20_000)) >= 1
    assert tokenize("'" * 50_000) == []


@given(st.text(max_size=80))
def test_the_shadow_keeps_every_place(text):
    assert len(shadow(text)) == len(text)
