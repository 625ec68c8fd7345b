"""Varied sentences to compare tokenizers on: captions, captions with quirks, and technical prose."""

from __future__ import annotations

import random
import re

__all__ = ["caption_sentences", "prose_sentences"]

_NOUNS_TEXT = """
    man woman dog cat bus street table t-shirt motorcycle skateboarder fire-hydrant giraffe pizza
    laptop umbrella baby girl boy people couple surfer train clock tower bathroom kitchen plate
    sandwich remote kite horse cow bench sign skis snowboard teddy-bear cell-phone frisbee tv
    microwave vase boat airplane jet elephant zebra stop-sign traffic-light café bride's-maid x-ray
    747 iPhone Mac BBQ SUV U-Haul
"""
_NOUNS = _NOUNS_TEXT.split()
_ADJECTIVES_TEXT = """
    red large small black-and-white brown old young wooden well-dressed two-story 3-year-old
    half-eaten double-decker snow-covered colorful blurry shirtless multi-colored open-air
    1950's-style old-fashioned
"""
_ADJECTIVES = _ADJECTIVES_TEXT.split()
_PLACES = [
    "on a beach",
    "in the park",
    "at the zoo",
    "next to a lake",
    "in front of a building",
    "on top of it",
]
_QUIRKS_TEXT = """
    man's woman's dogs' children's it's They're he's she'll I'm we've isn't doesn't can't won't
    cannot didn't don't "STOP" 'love' "One Way" (left) [blurred] a/c and/or black/white 2 12 3,000
    1.5 #5 no. 5 No. 12 $5.00 50% 10:30 1/2 24/7 5'10" 6ft. 4" St. Dr. Mr. Mrs. U.S. U.S.A. D.C.
    p.m. a.m. e.g. i.e. etc. vs. Jr. ... -- - ; : AT&T salt&pepper R&B A&W & w/ w/out 1st 2nd 90's
    '90s 1980s o'clock rock-n-roll rock'n'roll y'all 'n' 'em “smart” ‘single’ it’s doesn’t – — …
    café naïve jalapeño 20° ½ €5 £3 @home #sunny www.flickr.com foo@bar.com !! ?! !!! *star* ~ + =
    b&w 50-50 X-mas T-ball gonna wanna gotta kid's, boss's. O'Hare McDonald's Levi's Jan. 5 Sat.
    Main St. 5th Ave. Wal-Mart Coca-Cola 7-up C++ PB&J 4-way 2x4 hi-vis, e-mail ;-) :) mid-air, tv's
    TV's
"""
_QUIRKS = _QUIRKS_TEXT.split()
_TAILS = [".", "", ".", " .", "!", "?", "...", ". ", ",", ";", ".\n", ' ."', '."', ".)", " - ", "--"]


def _phrase(rng: random.Random) -> str:
    words = [rng.choice(["a", "the", "two", "A", "some", "an", "his", "The"])]
    words += [rng.choice(_ADJECTIVES)] * (rng.random() < 0.5)
    return " ".join([*words, rng.choice(_NOUNS)])


def caption_sentences(count: int, *, quirks: int, seed: int = 0) -> list[str]:
    """Compose captions, each with up to `quirks` of the spellings that tokenizers differ over."""
    rng = random.Random(f"{seed} {quirks}")
    sentences = []
    for _ in range(count):
        words = _phrase(rng).split(" ")
        words[0] = words[0].capitalize()
        joiners = [
            "riding",
            "with",
            "next to",
            "and",
            "holding",
            ", while",
            "that is near",
            "sitting on",
            "of",
        ]
        for _ in range(rng.randint(1, 3)):
            words += rng.choice(joiners).split(" ") + _phrase(rng).split(" ")
        words += rng.choice(_PLACES).split(" ") * (rng.random() < 0.5)
        for _ in range(rng.randint(0, quirks)):
            words.insert(rng.randint(0, len(words)), rng.choice(_QUIRKS))
        text = " ".join(words) + rng.choice(_TAILS)
        if rng.random() < 0.3:
            text = text.replace(" ,", ",")
        if quirks and rng.random() < 0.05:  # a space that was forgotten
            text = text.replace(". ", ".", 1).replace(", ", ",", 1)
        if rng.random() < 0.02:
            text = text.upper()
        sentences.append(text.replace("\n", " "))
    return sentences


def prose_sentences(count: int) -> list[str]:
    """Take sentences of the Python manual that ships with the interpreter: harder than captions."""
    from pydoc_data.topics import topics

    paragraphs = (re.sub(r"\s+", " ", p) for text in topics.values() for p in text.split("\n\n"))
    sentences = [s for p in paragraphs for s in re.split(r"(?<=[.!?]) (?=[A-Z])", p)]
    plain = [s.strip() for s in sentences if re.match(r"^\s*[A-Z][a-z' ]+ [a-z]", s) and 20 < len(s) < 200]
    return sorted(set(plain))[:count]
