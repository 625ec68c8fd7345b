"""The Penn Treebank tokenizer of the COCO caption evaluation, in Python.

The official scores use the Stanford tokenizer (Java) in lower case, and drop common punctuation afterwards.
This scanner follows the same conventions, so that scores can be compared;
`docs/explanation/how-to-read-caption-scores.md` lists where the two still differ. Some conventions are
unexpected but must stay: brackets become `-lrb-` and `-rrb-`, `!!!` is a word, and `dog.the` is not cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from visionkit.text.ptb_characters import APOSTROPHE, COMBINING, HYPHEN, INDEX, QUOTE, shadow

__all__ = ["tokenize"]

_REPLACED = str.maketrans(
    {
        "›": "'",
        **dict.fromkeys("‘‹\u201b\u0091", "`"),
        **dict.fromkeys("–—―\u0096\u0097", " -- "),
        **dict.fromkeys("\u00ad", ""),
        **dict.fromkeys("€¤\u0080\u20a0", " $ "),
        "…": " ... ",
        "£": " # ",
        "¢": " cents ",
        "½": " 1/2 ",
        "¼": " 1/4 ",
        "¾": " 3/4 ",
        "⅓": " 1/3 ",
        "⅔": " 2/3 ",
    }
)
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " "}
_DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"]) | {'"'}
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ALONE = frozenset([APOSTROPHE, HYPHEN, "\u066b"])  # parts of words and numbers that are no words
_TWO_WORDS = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "lemme": 3, "gimme": 3}

# Abbreviations, whose full stop is part of the word: always, only with a capital, only before a number.
_ABBREVIATIONS_TEXT = """
    adj adm adv al ala alex apr ariz assn assoc aug ave bancorp bhd bldg blvd brig bros calif capt
    cf cie cmdr co col colo conn corp cos cpl ct dak dec dept det dr drs elec ens esq est etc ext
    feb fla fri ft ga gen gov hon inc ind insp intl invt jan jos jr jul jun kan ky lt ltd maj mar md
    messrs mfg mich minn mme mo mon mont mr mrs ms mt mtg natl neb nev nov oct okla pfc ph plc pres
    prof pte pty pvt rd rep reps rev rt sen sens sep sept seq sfc sgt spc sq sr st ste supt sys tel
    tenn thu thurs tue tues univ va vs vt wed wis wisc wm wyo
"""
_ABBREVIATIONS = _ABBREVIATIONS_TEXT.split()
_CAPITAL_ABBREVIATIONS = ["Ark", "Az", "Del", "Ill", "La", "Mass", "Miss", "Ore", "Pa", "Tex", "Wash"]
_NUMBER_ABBREVIATIONS = ["art", "ca", "fig", "figs", "no", "nos", "op", "pp", "prop"]

# The rules match the shadow of a text, see `ptb_characters`. A combining character continues no number.
_LETTER = r"[^\W\d_]"
_ANY = r"[^\W_]"
_ALNUM = rf"[^\W_{COMBINING}]"
_PLAIN = rf"[^\W\d_{COMBINING}]"
_WORD = rf"{_LETTER}{_ANY}*"
_MARKED = rf"(?:{_PLAIN}{_ALNUM}*)?{COMBINING}{_ANY}*"
_END = rf"(?!{_ANY})"
_APOS = f"['{APOSTROPHE}]"
_ELIDED = rf"(?-i:[ldnoA-HJ-XZ]{_APOS}{_PLAIN}{{2,}})"
_PART = rf"(?:{_ELIDED}|{_ALNUM}+)"

# Tried in this order at each position; the first match is the token. Repeats are bounded where a rule can
# fail after a long run, so that the time is linear in the length of a sentence.
_RULES = [
    ("tag", r"</?[A-Za-z!][^<>]{0,200}>"),
    ("token", r"https?://[^\s\"<>|(){}]*[^\s\"<>|(){}.!?,;:'-]"),
    ("token", r"www\.(?:[^\s\"<>|().!?,{}/]{1,63}\.){1,5}[a-zA-Z]{2,4}(?:/\S*[^\s.,])?"),
    ("token", r"[A-Za-z0-9][^\s\"<>|(){}@]{0,63}@[^\s\"<>|(){}]{0,200}[^\s\"<>|(){}.]"),
    ("token", r"(?:[A-Za-z0-9-]{1,63}\.){1,5}(?:com|net|org|edu)\b(?:/[^\s.,!?]*)?"),
    ("token", rf"@[A-Za-z_][A-Za-z0-9_]*|@@+|#{_LETTER}+|&#\d+;"),
    ("face", r"[<>]?[:;=]['o-]?[()DPp\]\[](?![A-Za-z0-9])|\^_\^|>_<"),
    ("token", r"'t(?=is|was)"),
    ("token", rf"{_APOS}(?:em|till?|cause){_END}|{_APOS}n{_APOS}|{_APOS}n{_END}|{_APOS}[2-9]0s{_END}"),
    ("token", rf"(?<!{_ALNUM})(?:ol|somethin){_APOS}{_END}|o{_APOS}clock{_END}"),
    ("token", rf"(?:ma'am|c'mon|s'mores|nor'easter|ev'ry|li'l|nat'l|cont'd){_END}"),
    ("ending", rf"'(?:s|ll|ve|re|d|m)(?![A-Za-z0-9])|{APOSTROPHE}(?:s|ll|ve|re|d|m)|n{_APOS}t{_END}"),
    ("token", rf"{_ELIDED}(?:[-_{HYPHEN}]{_PART})*"),
    ("token", rf"[ldjy]{_APOS}(?={_LETTER})|c{_APOS}est{_END}"),
    (
        "token",
        rf"[A-Za-z]{{1,20}}[aeiouy]{_APOS}(?!ve|re|em|d{_END}|s{_END}|ll|m{_END})[aeiou][a-z]*{_END}",
    ),
    ("token", r"(?-i:[A-Z]+(?:&[A-Z]+)+)"),
    ("token", rf"(?:{_MARKED}|{_ALNUM}+(?:[-{HYPHEN}]{_ALNUM}+)*)\.(?=[,;:])"),
    ("token", rf"(?-i:{'|'.join(_CAPITAL_ABBREVIATIONS)})\.{_END}"),
    ("token", rf"(?:{'|'.join(_NUMBER_ABBREVIATIONS)})\.(?=\s*\d)"),
    ("token", rf"(?:{'|'.join(_ABBREVIATIONS)})\.{_END}"),
    ("token", rf"[A-Za-z](?:\.[A-Za-z])+(?:\.(?:-{_ALNUM}+)*(?!{_LETTER})|(?![\w.]))"),
    ("token", rf"ph\.d\.?{_END}|[A-Za-z]\.(?!{_LETTER})"),
    ("token", rf"{_WORD}(?:\.{_WORD})+(?:-{_ALNUM}+)*"),
    ("token", rf"{_WORD}[!?]{_WORD}"),
    ("token", r"[cC]\+\+|(?-i:[CcFf]#)|(?-i:US|HK|NZ|A|C|S)\$"),
    ("word", rf"{_ALNUM}+(?:[-_{HYPHEN}]{_PART})+"),
    ("number", rf"\d+\u2044\d+|\d+(?:/\d+)+(?:ths|rds|nds|th|rd|st|nd)?{_END}"),
    ("token", rf"[A-Za-z0-9]+(?:/[A-Za-z0-9]+)+{_END}"),
    ("number", r"[+-]?\d*(?:[.,:\u066b]\d+)+|[+-]\d+"),
    ("word", rf"{_MARKED}|{_ALNUM}+"),
    ("quotes", f"{QUOTE}{QUOTE}?"),
    ("token", rf"[?!]+|-{{5,}}|--?|\.|''|``|\*+|_+|#+|<<|>>|{INDEX}+"),
    ("one", r"\S"),
]
_SCANNER = re.compile(
    "|".join(f"(?P<r{i}_{kind}>{rule})" for i, (kind, rule) in enumerate(_RULES)), re.IGNORECASE
)
_NEGATION = re.compile(rf"([A-Za-z]+)(n['`{APOSTROPHE}]t){_END}", re.IGNORECASE)
_ENTITY = re.compile("|".join(_ENTITIES))


def tokenize(sentence: str) -> list[str]:
    """Cut a sentence into lower-case words without punctuation.

    Args:
        sentence: Any text; line breaks count as spaces.

    Returns:
        The words, as the COCO caption evaluation's tokenizer gives them: `"A man's dog doesn't bark."`
        becomes `["a", "man", "'s", "dog", "does", "n't", "bark"]`.

    Marcus et al., "Building a Large Annotated Corpus of English: the Penn Treebank", 1993; conventions of
    the Stanford tokenizer 3.4.1 as pycocoevalcap calls it.
    """
    text = _ENTITY.sub(lambda match: _ENTITIES[match[0]], sentence).translate(_REPLACED)
    return [token for token in _scan(text) if token not in _DROPPED]


def _scan(text: str) -> Iterator[str]:
    shade = shadow(text)
    end = 0
    while match := _SCANNER.search(shade, end):
        start, end = match.span()
        kind = (match.lastgroup or "").partition("_")[2]
        token = text[start:end]
        if kind == "word":
            negated = _NEGATION.match(shade, start)
            if negated:
                end = negated.end()
                yield text[start : negated.end(1)].lower()
                yield negated[2].lower().replace(APOSTROPHE, "'")
                continue
            cut = 0 if text.startswith(("'", "’"), end) else _TWO_WORDS.get(token.lower(), 0)
            if cut:
                yield token[:cut].lower()
            yield token[cut:].lower()
        elif kind == "ending":
            yield match[0].lower().replace(APOSTROPHE, "'")
        elif kind == "tag":
            yield from token.lower().split()
        elif kind == "face":
            yield "".join(_BRACKETS.get(c, c) if c in "()" else c for c in token).lower()
        elif kind == "quotes":
            if len(token) > 1:  # two quotation marks are a token, a single one is dropped
                yield "".join("``" if quote in "“«\u0093" else "''" for quote in token)
        elif kind == "one":
            if match[0] not in _ALONE:
                yield _BRACKETS.get(token, token.lower())
        else:
            yield token.lower()
