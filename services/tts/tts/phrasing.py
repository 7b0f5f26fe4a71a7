"""Text cut into speakable phrases, the first of them short.

The engine's first sound waits for the whole phrase to pass the encoder, so the first phrase ends at the first
natural pause; later ones are whole sentences, because a voice speaks a sentence best in one piece. Where a cut is
in doubt ("No. 5", "am 3. Mai") there is none: the phonemiser finds its own sentence ends inside a phrase.

Pure text in, pure text out. `clean` decides what is spoken at all, `phrases` and `PhraseBuffer` where to breathe,
`spoken_form` how a phrase is spelled for the phonemiser.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

# Weights are in Latin letters, about 15 a second; an ideograph or kana is a syllable and lasts as long as three.
CJK_WEIGHT = 3
# A first phrase shorter than this would sound chopped off ("Well, …").
FIRST_MIN_WEIGHT = 12
FIRST_MAX_WEIGHT = 90
MAX_WEIGHT = 220
# Characters that `phrases_of` looks at in one go.
SLICE = 4096

SENTENCE_ENDS = ".!?…。！？｡"
CLAUSE_ENDS = ",;:—–，、；：､"
CJK_ENDS = "。！？，、；：｡､"
CLOSERS = "\"')]}»”’」』）】》"
OPENERS = "\"'([{«“‘「『（【《¿¡"
DASHES = frozenset({"-", "–", "—"})

# Never end a sentence: a name, a number or an example follows.
TITLES = frozenset(
    {
        "mr",
        "mrs",
        "ms",
        "mx",
        "dr",
        "prof",
        "st",
        "rev",
        "hon",
        "gen",
        "col",
        "capt",
        "lt",
        "sgt",
        "messrs",
        "mme",
        "mlle",
        "m.me",
        "hr",
        "fr",
        "sra",
        "sr.a",
        "e.g",
        "i.e",
        "vs",
        "cf",
        "approx",
        "fig",
        "figs",
        "vol",
        "pp",
        "eq",
        "ca",
        "z.b",
        "d.h",
        "bzw",
        "usw",
        "nr",
        "p.ej",
    }
)
# May end one: only a capital letter after them says so.
AMBIGUOUS = frozenset(
    {
        "no",
        "nos",
        "etc",
        "inc",
        "ltd",
        "co",
        "corp",
        "jr",
        "sr",
        "dept",
        "est",
        "min",
        "max",
        "tel",
        "ext",
        "a.m",
        "p.m",
        "u.s",
        "u.k",
        "u.n",
        "e.u",
        "ave",
        "blvd",
        "rd",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "mon",
        "tue",
        "tues",
        "wed",
        "thu",
        "thurs",
        "fri",
        "sat",
        "sun",
    }
)

_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b1b\u2b1c\u2b50\u2b55\u231a\u231b\u2328\u23cf\u23e9-\u23fa"
    "\u2934\u2935\u3030\u303d]"
)
# Zero width joiners, direction marks, the byte order mark: nothing to hear, and espeak spells some of them out.
_INVISIBLE = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u20e3\ufe0e\ufe0f\ufeff\U000e0020-\U000e007f]"
)
_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]")
_CJK_CUT = re.compile(f"(?<=[{CJK_ENDS}])(?![{CJK_ENDS}{re.escape(CLOSERS)}])|(?<=[{CJK_ENDS}][」』）】》”’])")


class Cut(IntEnum):
    """How good a place to cut follows a word, best last."""

    NEVER = 0
    WORD = 1
    CLAUSE = 2
    SENTENCE = 3


@dataclass(frozen=True)
class Word:
    """A piece that is never cut; `gap` is the white space that followed it, empty between CJK clauses."""

    text: str
    gap: str

    @property
    def weight(self) -> int:
        return _weight(self.text) + bool(self.gap)


def clean(text: str) -> str:
    """The text without what cannot be spoken: emoji, control and zero-width characters.

    White space is kept (a line break is a pause), and so is every word.
    """
    return _without_unspoken(text).strip()


def phrases(text: str) -> list[str]:
    """The phrases of a complete text, in order.

    Every word of `clean(text)` is in exactly one phrase; none has more weight than `MAX_WEIGHT`, and
    numbers, URLs and e-mail addresses stay whole (unless one is itself longer than that). Empty when nothing
    can be spoken.
    """
    words = list(_words(clean(text)))
    return _assemble(words, first=True, final=True)[0]


class PhraseBuffer:
    """Phrases of a text that arrives in fragments, broken anywhere, also inside words (protocol 2.5.3).

    A phrase leaves once the word after its end has begun, or on `flush`. The cuts are those of `phrases`, as far
    as the beginning of the next word tells them.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._first = True

    @property
    def pending(self) -> bool:
        """Whether text waits for its phrase to be completed."""
        return bool(self._pending.strip())

    def push(self, fragment: str) -> list[str]:
        """The phrases that `fragment` completes."""
        self._pending += _without_unspoken(fragment)
        return self._take(final=False)

    def flush(self) -> list[str]:
        """What is left, as phrases. The buffer is then empty, and its next phrase is a first one again."""
        spoken = self._take(final=True)
        self._pending, self._first = "", True
        return spoken

    def _take(self, *, final: bool) -> list[str]:
        words = list(_words(self._pending))
        spoken, used = _assemble(words, first=self._first, final=final)
        self._pending = "".join(word.text + word.gap for word in words[used:])
        self._first = self._first and not spoken
        return spoken


def phrases_of(text: str) -> Iterator[str]:
    """`phrases`, found as they are asked for: a text of a megabyte must not delay its first word by seconds."""
    buffer = PhraseBuffer()
    for at in range(0, len(text), SLICE):
        yield from buffer.push(text[at : at + SLICE])
    yield from buffer.flush()


# --- Where to cut


def _assemble(words: list[Word], *, first: bool, final: bool) -> tuple[list[str], int]:
    """Words joined up to their cuts, and how many were used.

    Unless `final`, the last word may still grow and belongs to no phrase yet. Lone punctuation at the end joins
    the phrase before it: a phrase needs something to say.
    """
    known = len(words) if final else len(words) - 1
    cuts = [_cut_after(words[i], words[i + 1] if i + 1 < len(words) else None) for i in range(known)]
    made: list[str] = []
    start = 0
    while start < known:
        end = _phrase_end(words, cuts, start, first=first and not made)
        if end is None and not final:
            break
        end = end or known
        phrase = _join(words[start:end])
        if _has_sound(phrase):
            made.append(phrase)
        elif made and _weight(made[-1]) + _weight(phrase) < MAX_WEIGHT:
            made[-1] = f"{made[-1]} {phrase}"
        start = end
    return made, start


def _phrase_end(words: list[Word], cuts: list[Cut], start: int, *, first: bool) -> int | None:
    """Index after the last word of the phrase that begins at `start`; None when the words end before it does."""
    limit = FIRST_MAX_WEIGHT if first else MAX_WEIGHT
    best, best_end = Cut.NEVER, start
    weight, sound = 0, False
    for index, cut in enumerate(cuts[start:], start):
        word = words[index]
        if index > start and weight + _weight(word.text) > limit:
            if best_end > start:
                return best_end
            if weight + _weight(word.text) > MAX_WEIGHT:  # one number, longer than any phrase
                return index
        weight += word.weight
        sound = sound or _has_sound(word.text)
        if sound and (cut is Cut.SENTENCE or (first and cut is Cut.CLAUSE and weight >= FIRST_MIN_WEIGHT)):
            return index + 1
        # A clause end beats any later space, unless the phrase would be a stub.
        worth = Cut.WORD if cut is Cut.CLAUSE and weight < limit // 2 else cut
        if worth is not Cut.NEVER and worth >= best:
            best, best_end = worth, index + 1
    return None


def _cut_after(word: Word, after: Word | None) -> Cut:
    """How good a cut after `word` is, seen with the word after it."""
    if after is None or "\n\n" in word.gap.replace("\r", "").replace(" ", ""):
        return Cut.SENTENCE
    inner = word.text.rstrip(CLOSERS)
    if inner[-1:] in CJK_ENDS and inner:
        return Cut.SENTENCE if inner[-1] in SENTENCE_ENDS else Cut.CLAUSE
    if not word.gap:
        return Cut.WORD
    if inner[-1:] in SENTENCE_ENDS and inner and _ends_sentence(inner, after):
        return Cut.SENTENCE
    if _is_number(word.text) and _is_number(after.text):
        return Cut.NEVER
    if "\n" in word.gap or (inner and inner[-1] in CLAUSE_ENDS) or after.text in DASHES:
        return Cut.CLAUSE
    return Cut.WORD


def _ends_sentence(inner: str, after: Word) -> bool:
    """Whether a word that ends in a full stop or the like ends its sentence."""
    follower = after.text.lstrip(OPENERS)
    if follower[:1].islower():
        return False
    if inner[-1] != "." or inner.endswith(".."):
        return True
    stem = inner.lstrip(OPENERS).rstrip(".").lower()
    if stem in TITLES:
        return False
    if stem in AMBIGUOUS:
        return follower[:1].isalpha()
    # "J. Smith" is a name; "3." an ordinal or the number of a list item.
    return not (len(stem) == 1 and stem.isalpha()) and not (stem.isdigit() and len(stem) <= 2)


def _is_number(text: str) -> bool:
    """Whether the word is a number or part of one: digits with signs, separators, brackets; no letters."""
    return any(c.isdigit() for c in text) and not any(c.isalpha() for c in text)


def _words(text: str) -> Iterator[Word]:
    """The uncuttable pieces of a text, with the white space that followed each; leading space is dropped."""
    for match in re.finditer(r"(\S+)(\s*)", text):
        run, gap = match.groups()
        pieces = [piece for part in _CJK_CUT.split(run) if part for piece in _short_enough(part)]
        yield from (Word(piece, "") for piece in pieces[:-1])
        yield Word(pieces[-1], gap)


def _short_enough(part: str) -> Iterator[str]:
    """A piece that no phrase could hold, cut by force: nothing an outsider sends may stall the engine."""
    size = MAX_WEIGHT // (CJK_WEIGHT if _CJK.search(part) else 1)
    yield from (part[at : at + size] for at in range(0, len(part), size))


def _join(words: list[Word]) -> str:
    return "".join(word.text + (" " if word.gap else "") for word in words).strip()


def _weight(text: str) -> int:
    return len(text) + (CJK_WEIGHT - 1) * len(_CJK.findall(text))


def _has_sound(text: str) -> bool:
    """Whether anything in the text is spoken: a letter, a digit, or a sign that has a name."""
    return any(unicodedata.category(c)[0] in "LN" or c in "%&@#+=<>$€£¥°§" for c in text)


def _without_unspoken(text: str) -> str:
    # Variation selectors and keycaps vanish ("4\ufe0f\u20e3" is a 4), pictures leave a space between words.
    text = _EMOJI.sub(" ", _INVISIBLE.sub("", text))
    return "".join(" " if _is_unspeakable(character) else character for character in text)


def _is_unspeakable(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") and not character.isspace()


# --- How it is spelled

# Dotted, these make espeak stop as at the end of a sentence; undotted they are read the same.
_TITLE_STOP = re.compile(
    r"\b(" + "|".join(sorted(re.escape(title) for title in TITLES | {"no"} if "." not in title)) + r")\.(?=\s+\S)",
    re.IGNORECASE,
)
# Seven digits in a row are a telephone or account number, and nobody says those in millions. Amounts keep their
# words: with a currency sign, a decimal part or separators.
_DIGIT_RUN = re.compile(r"(?<![\w.,$€£¥])(\+?)(\d{7,})(?![\w%€£¥]|[.,]\d)")
_PHONE = re.compile(r"(?<![\w.,/-])(?:\+?\(?\d{1,4}(?:\)[ .-]?|[ .-]))*\d{3}-\d{4}(?![\w/-]|[.,]\d)")


def spoken_form(phrase: str) -> str:
    """The phrase as the phonemiser should see it: telephone and account numbers digit by digit, titles undotted.

    "call 5551234" is read as five million otherwise; "555-1234" as a subtraction. Square brackets in pairs are
    piper's notation for raw phonemes, which a client's text is not.
    """
    phrase = phrase.replace("[[", "[ ").replace("]]", " ]")
    phrase = _TITLE_STOP.sub(_undot, phrase)
    phrase = _PHONE.sub(lambda match: _dictate(re.findall(r"\d+", match[0]), match[0]), phrase)
    return _DIGIT_RUN.sub(lambda match: _dictate(_grouped(match[2]), match[0]), phrase)


def _undot(match: re.Match[str]) -> str:
    # "No." is an answer unless a number follows.
    number_follows = match.string[match.end() :].lstrip()[:1].isdigit()
    return match[0] if match[1].lower() == "no" and not number_follows else match[1]


def _grouped(digits: str) -> list[str]:
    """Groups of three, the last of four rather than one left alone, as such numbers are dictated."""
    cuts = list(range(0, len(digits) - 1 if len(digits) % 3 == 1 else len(digits), 3))
    return [digits[at:end] for at, end in zip(cuts, [*cuts[1:], len(digits)], strict=True)]


def _dictate(groups: list[str], written: str) -> str:
    """Digits one by one with a short pause between the groups; a leading plus stays."""
    return ("+" if written.startswith("+") else "") + ", ".join(" ".join(group) for group in groups)
