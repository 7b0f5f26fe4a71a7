"""The signature header."""

from hypothesis import given
from hypothesis import strategies as st

from webhook_dispatcher.signature import signature

# Computed with OpenSSL 3: printf '1772615720.{"event":"invite"}' | openssl dgst -sha256 -hmac s3cr3t
KNOWN = "1919336ea5d11d387db00dbddd982bb50addaaad1f64f5835de694cb37d15b8b"


def test_known_answer() -> None:
    assert signature("s3cr3t", 1772615720, b'{"event":"invite"}') == f"t=1772615720,v1={KNOWN}"


@given(st.text(min_size=1), st.integers(0, 1 << 40), st.binary())
def test_secret_time_and_body_all_count(secret: str, stamp: int, body: bytes) -> None:
    def digest(secret: str, stamp: int, body: bytes) -> str:
        return signature(secret, stamp, body).partition(",v1=")[2]

    ours = digest(secret, stamp, body)
    assert digest(secret, stamp, body + b"x") != ours
    assert digest(secret + "x", stamp, body) != ours
    assert digest(secret, stamp + 1, body) != ours
