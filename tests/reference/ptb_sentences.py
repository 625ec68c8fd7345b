"""Varied sentences to compare tokenizers on: captions, with quirks, of many scripts, and technical prose."""

from __future__ import annotations

import random
import re
import unicodedata

__all__ = ["caption_sentences", "prose_sentences", "script_sentences"]

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


_SCRIPTS_TEXT = """
    एक लड़का कुत्ते के साथ खेल रहा है मैदान में ५६ হিন্দি একটি কুকুর ছেলে தமிழ் நாய் ஓடுகிறது తెలుగు కుక్క
    മലയാളം ನಾಯಿ ಕನ್ನಡ ગુજરાતી કૂતરો ਪੰਜਾਬੀ ਕੁੱਤਾ ଓଡ଼ିଆ සිංහල မြန်မာ ខ្មែរ ລາວ བོད་ አማርኛ สุนัขวิ่งเล่น ที่ นี่ กำลัง
    مَرْحَبًا كلب يركض ٣٤ ٣٫٥ می‌خواهم کتاب‌ها שָׁלוֹם הכלב רץ נ״ב ג׳ירפה собака ёлка йод й и. Ελλάδα σκύλος
    ქართული Հայերեն ᏣᎳᎩ ߒߞߏ 狗在草地上 一只 犬が走っている。 カー ｶﾞ パ が 개가 달린다 한글 tiếng Việt
    café naïve garçon niño Zürich Über straße Ærø İstanbul ılık l'été d'été l’homme l’arrière-plan qu'il
    chef-d'œuvre aujourd'hui j'aime c'est don’t it’s they’ll o’clock ’90s y’all niño/niña å. é. 5/6 1⁄2 ½ ¾
    co\u00adop ﬁne Ⅷ № µm 20°C x² H₂O ＡＢ １２ ！ ？ ， 。 、 「犬」 《狗》 ¿qué? ¡no! „Hund“ »Katze« ‹x›
    “z” “” … — – ‐ a‐b non‑break 👍🏽 👍 ❤️ ❤ 👩‍👩‍👧 1️⃣ #️⃣ 🇩🇪 ☺️ ✔️ ☎ 🏃‍♀️ 🤷🏽‍♂️ ™ © ® ★ ☆ • · → ∞ ≤ € £5 ¥ ₹100 ¢
    \u200b \u200d \ufeff \u2060 a the dog red T-shirt man's 12 3.5 #हिन्दी #été @dog dog@cat dog., cat.;
"""
_SCRIPTS = _SCRIPTS_TEXT.split()


def script_sentences(count: int, *, seed: int = 0) -> list[str]:
    """Compose sentences of words of many scripts, emoji, symbols and punctuation, in every Unicode form."""
    rng = random.Random(f"scripts {seed}")
    forms = ("NFC", "NFD", "NFKC", "NFKD")
    sentences = []
    for _ in range(count):
        words = []
        for _ in range(rng.randint(2, 6)):
            word, chance = rng.choice(_SCRIPTS), rng.random()
            if chance < 0.12:
                word += rng.choice(".,;:!?'\")-")
            elif chance < 0.18:
                word = rng.choice("'\"(-#") + word
            elif chance < 0.26:
                word += rng.choice(["-", ".", "'", ",", "/", "_", "\u200d", "\ufe0f"]) + rng.choice(_SCRIPTS)
            elif chance < 0.3:
                word = word.upper()
            words.append(unicodedata.normalize(rng.choice(forms), word) if rng.random() < 0.25 else word)
        sentences.append(" ".join(words))
    return sentences


def prose_sentences(count: int) -> list[str]:
    """Take sentences of the Python manual that ships with the interpreter: harder than captions."""
    from pydoc_data.topics import topics

    paragraphs = (re.sub(r"\s+", " ", p) for text in topics.values() for p in text.split("\n\n"))
    sentences = [s for p in paragraphs for s in re.split(r"(?<=[.!?]) (?=[A-Z])", p)]
    plain = [s.strip() for s in sentences if re.match(r"^\s*[A-Z][a-z' ]+ [a-z]", s) and 20 < len(s) < 200]
    return sorted(set(plain))[:count]
