"""Where a text is cut, where it must not be, and that nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.phrasing import FIRST_MAX_WEIGHT, MAX_WEIGHT, PhraseBuffer, clean, phrases, phrases_of, spoken_form


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello.", ["Hello."]),
        ("Hello. How are you?", ["Hello.", "How are you?"]),
        ("Yes! No? Well…  Good", ["Yes!", "No?", "Well…", "Good"]),
        ("Good morning Sir, how can I help?", ["Good morning Sir,", "how can I help?"]),
        ("Well, it depends on you.", ["Well, it depends on you."]),
        ("One. Two of these, and three of those, please.", ["One.", "Two of these, and three of those, please."]),
        ("Mr. Smith met Dr. J. Brown, e.g. here.", ["Mr. Smith met Dr. J. Brown,", "e.g. here."]),
        ("It closes at 5 p.m. on Friday.", ["It closes at 5 p.m. on Friday."]),
        ("It closes at 5 p.m. Please be early.", ["It closes at 5 p.m.", "Please be early."]),
        ("Take No. 5 or vs. that.", ["Take No. 5 or vs. that."]),
        ("No. That is wrong.", ["No.", "That is wrong."]),
        ("Pi is 3.14. Call at 10:30.", ["Pi is 3.14.", "Call at 10:30."]),
        ("The fare is 1,000.50 dollars, sir.", ["The fare is 1,000.50 dollars,", "sir."]),
        ("Dial 555, 12, 34, 5 now.", ["Dial 555, 12, 34, 5 now."]),
        (
            "Ask a.b@example.com or https://x.org/a,b?c=1. Bye.",
            ["Ask a.b@example.com or https://x.org/a,b?c=1.", "Bye."],
        ),
        ('"Stop." He left.', ['"Stop."', "He left."]),
        ("He (the boss.) left.", ["He (the boss.) left."]),
        ("Wait... what? ... Really?!", ["Wait... what?", "... Really?!"]),
        ("Am 3. Mai kommt er.", ["Am 3. Mai kommt er."]),
        ("1. Open it\n2. Close it\n\nDone", ["1. Open it 2. Close it", "Done"]),
        ("First line here\nsecond line", ["First line here", "second line"]),
        ("你好，我是前台。请问有什么可以帮您？谢谢！", ["你好，我是前台。", "请问有什么可以帮您？", "谢谢！"]),
        ("「はい。」と言った。", ["「はい。」", "と言った。"]),
        ("Hi 😀👍🏽 there 🇩🇪!", ["Hi there !"]),
        ("Press 4\ufe0f\u20e3 now", ["Press 4 now"]),
        ("(555)123", ["(555)123"]),
        ("zero\u200bwidth \x07bell", ["zerowidth bell"]),
        ("", []),
        (" \n\t ", []),
        ("... !? 😀", []),
        ("50 % off", ["50 % off"]),
    ],
)
def test_text_is_cut_where_one_would_breathe(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


def test_long_first_sentence_is_cut_early_and_later_ones_are_not() -> None:
    sentence = " ".join(["word"] * 30) + "."

    first, *rest = phrases(f"{sentence} W{sentence[1:]}")

    assert len(first) <= FIRST_MAX_WEIGHT
    assert rest[-1] == f"W{sentence[1:]}"


def test_too_long_a_sentence_is_cut_at_a_clause_end_rather_than_a_space() -> None:
    sentence = "Yes. " + "Word " * 30 + "here, " + "then " * 30 + "end."

    assert phrases(sentence)[1].endswith("here,")


def test_long_number_is_not_cut() -> None:
    digits = " ".join("123" for _ in range(30))

    assert digits in " | ".join(phrases(f"Yes. {'word ' * 30} {digits} {'word ' * 30}"))


def test_a_word_no_phrase_could_hold_is_cut_by_force() -> None:
    made = phrases("a" * 1000)

    assert "".join(made) == "a" * 1000
    assert max(map(len, made)) <= MAX_WEIGHT


WORDS = ["Mr.", "e.g.", "3.14", "10:30", "x", "Word", "a@b.de", "https://a.b/c,d", "5", "你好", "No.", "w" * 250]
SIGNS = ["。", ".", "!", ",", " ", "  ", "\n", "\n\n", "😀", "-", "—", '"', ")", "\u200d", "end.", "[["]
PIECES = st.sampled_from([*WORDS, *SIGNS])
TEXTS = st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=300)


def sounds(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


@given(TEXTS)
def test_every_sound_is_spoken_once_and_in_order(text: str) -> None:
    made = phrases(text)

    assert sounds("".join(made)) == sounds(clean(text))
    assert all(phrase == phrase.strip() and phrase for phrase in made)


@given(st.lists(st.text("abc123.,!?;:-'\"()", min_size=1, max_size=8), max_size=60))
def test_words_stay_whole(words: list[str]) -> None:
    spoken = " ".join(phrases(" ".join(words))).split()

    assert [word for word in spoken if sounds(word)] == [word for word in words if sounds(word)]


@given(TEXTS)
def test_phrases_are_bounded(text: str) -> None:
    assert all(len(phrase) <= MAX_WEIGHT for phrase in phrases(text))


@given(TEXTS, st.lists(st.integers(1, 12), min_size=1, max_size=20))
def test_fragments_give_the_same_words_as_the_whole(text: str, sizes: list[int]) -> None:
    buffer = PhraseBuffer()
    made: list[str] = []
    rest, turn = text, 0
    while rest:
        size = sizes[turn % len(sizes)]
        made += buffer.push(rest[:size])
        rest, turn = rest[size:], turn + 1
    made += buffer.flush()

    assert sounds("".join(made)) == sounds(clean(text))
    assert not buffer.pending


def test_fragments_leave_when_their_phrase_is_certain() -> None:
    buffer = PhraseBuffer()

    assert buffer.push("Good mor") == []
    assert buffer.push("ning. ") == []
    assert buffer.push("How are") == ["Good morning."]
    assert buffer.push(" you?") == []
    assert buffer.push(" Fi") == ["How are you?"]
    assert buffer.push("ne.") == []
    assert buffer.flush() == ["Fine."]
    assert buffer.flush() == []


def test_white_space_at_a_seam_is_kept() -> None:
    buffer = PhraseBuffer()

    assert buffer.push("one ") + buffer.push(" two") + buffer.push("three") + buffer.flush() == ["one twothree"]


def test_first_phrase_of_a_huge_text_is_found_without_reading_the_rest() -> None:
    text = "Hello there. " * 2000
    made = phrases_of(text)

    assert next(made) == "Hello there."
    assert [*made] == phrases(text)[1:]


def test_cutting_takes_linear_time_on_hostile_text() -> None:
    assert phrases("! " * 50_000) == []
    assert len(phrases("1 " * 50_000)) > 400


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Your code is 4 2 7 1", "Your code is 4 2 7 1"),
        ("call 5551234", "call 5 5 5, 1 2 3 4"),
        ("call 555-1234.", "call 5 5 5, 1 2 3 4."),
        ("+1 (415) 555-2671", "+1, 4 1 5, 5 5 5, 2 6 7 1"),
        ("account 12345678 is", "account 1 2 3, 4 5 6, 7 8 is"),
        ("+491701234567", "+4 9 1, 7 0 1, 2 3 4, 5 6 7"),
        ("code 4271", "code 4271"),
        ("(555)123-4567", "5 5 5, 1 2 3, 4 5 6 7"),
        ("0800 123-4567!", "0 8 0 0, 1 2 3, 4 5 6 7!"),
        ("$5551234", "$5551234"),
        ("12345678.50", "12345678.50"),
        ("1,000,000 people", "1,000,000 people"),
        ("from 2024-05-17 to 2024-2025", "from 2024-05-17 to 2024-2025"),
        ("id ab1234567", "id ab1234567"),
        ("Mr. Smith and Dr. Who", "Mr Smith and Dr Who"),
        ("No. 5. No. Never.", "No 5. No. Never."),
        ("a [[b]] c", "a [ b ] c"),
    ],
)
def test_numbers_are_dictated_and_titles_do_not_end_sentences(written: str, spoken: str) -> None:
    assert spoken_form(written) == spoken
