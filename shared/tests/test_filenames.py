"""File names made of ids that outsiders chose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialbus.filenames import LONGEST_BYTES, file_safe


@pytest.mark.parametrize("plain", ["s.5f0c", "k7Qm2x9@192.0.2.15-b81Fe0-Zt5Rw2Lp", "a b", "é", "q_1"])
def test_harmless_ids_stand_for_themselves(plain: str) -> None:
    assert file_safe(plain) == plain


@pytest.mark.parametrize(
    ("odd", "begin"), [("q/1", "q_1-"), ("../x", "_._x-"), (".", "_-"), ("", "_-"), ("a\x00b", "a_b-")]
)
def test_what_had_to_be_changed_is_told_apart_by_a_digest(odd: str, begin: str) -> None:
    assert file_safe(odd).startswith(begin)
    assert file_safe(odd) != file_safe(begin.rstrip("-"))


@given(st.text(), st.text())
def test_two_ids_never_share_a_name_and_every_name_is_one_component(one: str, other: str) -> None:
    for name in (file_safe(one), file_safe(other)):
        assert name
        assert not set(name) & {"/", "\\", "\0"}
        assert not name.startswith(".")
        assert len(name.encode()) <= LONGEST_BYTES
    if one != other:
        assert file_safe(one) != file_safe(other)


def test_long_ids_that_differ_at_their_end_stay_apart() -> None:
    assert file_safe("a" * 300 + "1") != file_safe("a" * 300 + "2")
