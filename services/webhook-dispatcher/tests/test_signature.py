"""The signature header."""

from hypothesis import given
from hypothesis import strategies as st

from webhook_dispatcher.signature import signature, verified

# Computed with OpenSSL 3: printf '1772615720.{"event":"invite"}' | openssl dgst -sha256 -hmac s3cr3t
KNOWN = "1919336ea5d11d387db00dbddd982bb50addaaad1f64f5835de694cb37d15b8b"


def test_known_answer() -> None:
    assert signature("s3cr3t", 1772615720, b'{"event":"invite"}') == f"t=1772615720,v1={KNOWN}"


@given(st.text(min_size=1), st.integers(0, 1 << 40), st.binary())
def test_own_signatures_verify_and_altered_bodies_do_not(secret: str, stamp: int, body: bytes) -> None:
    value = signature(secret, stamp, body)
    assert verified(secret, value, body, now_s=stamp)
    assert not verified(secret, value, body + b"x", now_s=stamp)
    assert not verified(secret + "x", value, body, now_s=stamp)


def test_old_and_malformed_signatures_are_refused() -> None:
    value = signature("k", 1000, b"b")
    assert verified("k", value, b"b", now_s=1300)
    assert not verified("k", value, b"b", now_s=1301)
    for broken in ("", "t=,v1=", "v1=aa", "t=-5,v1=aa", value.replace("v1", "v2")):
        assert not verified("k", broken, b"b", now_s=1000)
