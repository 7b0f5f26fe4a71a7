"""DTLS-SRTP of one leg: the handshake in memory, then keys for SRTP. Sans-IO. Sources: RFC 5763, RFC 5764, RFC 6347.

Datagrams go in through `receive`, what is to be sent comes out of `take`; `wait_s` says when to call `tick`.
"""

import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Literal

import pylibsrtp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

_DTLS_1_2: Final = 0xFEFD
"""The one version there is on the web (RFC 8827 §6.5); with it every record carries its length."""

_MTU = 1200  # fits any path with a relay in between
_RECORD_HEADER = 13
_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-RSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"
)
_LABEL = b"EXTRACTOR-dtls_srtp"
_VALID_DAYS = 30
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "sha-256": hashes.SHA256(),
    "sha-384": hashes.SHA384(),
    "sha-512": hashes.SHA512(),
}

Role = Literal["active", "passive"]


class DtlsState(Enum):
    """Where the transport stands."""

    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"
    """The peer said goodbye, or we did."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class _Profile:
    """One SRTP protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2)."""

    name: bytes
    number: int
    key_bytes: int
    salt_bytes: int


_PROFILES = (
    _Profile(b"SRTP_AEAD_AES_128_GCM", pylibsrtp.Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    _Profile(b"SRTP_AES128_CM_SHA1_80", pylibsrtp.Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
)


class Identity:
    """A key and the certificate that the SDP's fingerprint names; one for each leg, so that no two can be linked."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, secrets.token_hex(16))])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=_VALID_DAYS))
            .sign(self.key, hashes.SHA256())
        )

    @property
    def fingerprint(self) -> str:
        """The sha-256 digest, as SDP writes it."""
        return digest(self.certificate, "sha-256")


def digest(certificate: x509.Certificate, algorithm: str) -> str:
    """A certificate's digest as `AB:CD:…`. Raises KeyError for an unknown algorithm."""
    return certificate.fingerprint(_HASHES[algorithm]).hex(":").upper()


class DtlsSrtp:
    """One DTLS association and the two SRTP sessions that it makes."""

    def __init__(self, identity: Identity, role: Role, fingerprints: Iterable[tuple[str, str]]) -> None:
        """`fingerprints` of the peer's certificate: algorithm and digest in capitals; each known one must fit."""
        self._fingerprints = tuple(fingerprints)
        self._role = role
        context = SSL.Context(SSL.DTLS_METHOD)
        context.set_min_proto_version(_DTLS_1_2)
        context.set_max_proto_version(_DTLS_1_2)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_QUERY_MTU | SSL.OP_NO_RENEGOTIATION)
        # Certificates of the web's media are signed by themselves; the fingerprint is what is checked (RFC 5763 §5).
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
        context.set_cipher_list(_CIPHERS)
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        context.set_tlsext_use_srtp(b":".join(profile.name for profile in _PROFILES))
        self._ssl = SSL.Connection(context)
        self._ssl.set_ciphertext_mtu(_MTU)
        if role == "active":
            self._ssl.set_connect_state()
        else:
            self._ssl.set_accept_state()
        self._out: list[bytes] = []
        self._receiving: pylibsrtp.Session | None = None
        self._sending: pylibsrtp.Session | None = None
        self.state = DtlsState.HANDSHAKE
        self.failure = ""
        """Why it failed."""

    # -- the handshake ----------------------------------------------------------------------------

    def start(self) -> None:
        """Open the handshake, if that is our part; else wait for the peer's."""
        self._advance()

    def receive(self, datagram: bytes) -> None:
        """Take a datagram of the peer that is DTLS."""
        if self.state in (DtlsState.CLOSED, DtlsState.FAILED):
            return
        self._ssl.bio_write(datagram)
        if self.state is DtlsState.HANDSHAKE:
            self._advance()
        if self.state is DtlsState.OPEN:
            self._read()
        self._collect()

    def tick(self) -> None:
        """`wait_s` has passed: send again what may be lost."""
        self._ssl.DTLSv1_handle_timeout()
        self._collect()

    @property
    def wait_s(self) -> float | None:
        """Seconds until `tick` is due, counted from now; None: never."""
        return self._ssl.DTLSv1_get_timeout() if self.state is DtlsState.HANDSHAKE else None

    def take(self) -> list[bytes]:
        """The datagrams to send."""
        out, self._out = self._out, []
        return out

    def close(self) -> None:
        """Say goodbye; what is to be sent is left in `take`."""
        if self.state is DtlsState.OPEN:
            with suppress(SSL.Error):
                self._ssl.shutdown()
            self._collect()
        if self.state is not DtlsState.FAILED:
            self.state = DtlsState.CLOSED

    def _advance(self) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._collect()
        except SSL.Error as error:
            self._collect()  # the alert
            self._fail(f"DTLS handshake failed: {_reason(error)}")
        else:
            self._collect()
            self._open()

    def _open(self) -> None:
        certificate = self._ssl.get_peer_certificate(as_cryptography=True)
        known = [pair for pair in self._fingerprints if pair[0] in _HASHES]
        if certificate is None or not known or any(digest(certificate, kind) != value for kind, value in known):
            self._fail("the certificate does not fit the fingerprint of the offer")
            return
        name = self._ssl.get_selected_srtp_profile()
        profile = next((profile for profile in _PROFILES if profile.name == name), None)
        if profile is None:
            self._fail("no SRTP profile in common")
            return
        sides = 2 * (profile.key_bytes + profile.salt_bytes)
        material = self._ssl.export_keying_material(_LABEL, sides)
        client, server = _keys(material, profile)
        ours, theirs = (client, server) if self._role == "active" else (server, client)
        self._sending = _session(ours, pylibsrtp.Policy.SSRC_ANY_OUTBOUND, profile)
        self._receiving = _session(theirs, pylibsrtp.Policy.SSRC_ANY_INBOUND, profile)
        self.state = DtlsState.OPEN

    def _read(self) -> None:
        try:
            while True:  # application data is of no use here; this is how a goodbye is noticed
                self._ssl.recv(1 << 14)
        except SSL.ZeroReturnError:
            self.state = DtlsState.CLOSED
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self._fail(f"DTLS failed: {_reason(error)}")

    def _collect(self) -> None:
        """Take what OpenSSL wants to send."""
        data = bytearray()
        while True:
            try:
                data += self._ssl.bio_read(1 << 14)
            except SSL.Error:
                break
        self._out += _datagrams(bytes(data))

    def _fail(self, why: str) -> None:
        self.state = DtlsState.FAILED
        self.failure = why

    # -- SRTP -------------------------------------------------------------------------------------

    def protect(self, packet: bytes, *, control: bool) -> bytes | None:
        """SRTP or SRTCP of a packet; None before the handshake is done, or for what is no packet."""
        if self._sending is None:
            return None
        try:
            return self._sending.protect_rtcp(packet) if control else self._sending.protect(packet)
        except (pylibsrtp.Error, ValueError, TypeError):
            return None

    def unprotect(self, packet: bytes, *, control: bool) -> bytes | None:
        """The packet inside; None when it is not the peer's, was changed, or came before."""
        if self._receiving is None:
            return None
        try:
            return self._receiving.unprotect_rtcp(packet) if control else self._receiving.unprotect(packet)
        except (pylibsrtp.Error, ValueError, TypeError):
            return None


def _keys(material: bytes, profile: _Profile) -> tuple[bytes, bytes]:
    """Key and salt of client and server (RFC 5764 §4.2): both keys come first."""
    key, salt = profile.key_bytes, profile.salt_bytes
    salts = material[2 * key :]
    return material[:key] + salts[:salt], material[key : 2 * key] + salts[salt:]


def _session(key: bytes, kind: int, profile: _Profile) -> pylibsrtp.Session:
    policy = pylibsrtp.Policy(key=key, ssrc_type=kind, srtp_profile=profile.number)
    policy.window_size = 1024
    return pylibsrtp.Session(policy)


def _datagrams(data: bytes) -> list[bytes]:
    """Records one behind the other, as datagrams that hold whole records and fit the path."""
    found: list[bytes] = []
    start = end = 0
    while end < len(data):
        following = end + _RECORD_HEADER + int.from_bytes(data[end + 11 : end + 13], "big")
        if following - start > _MTU and start < end:
            found.append(data[start:end])
            start = end
        end = following
    return [*found, data[start:]] if data else []


def _reason(error: SSL.Error) -> str:
    """OpenSSL's words for it."""
    details = error.args[0] if error.args else None
    return str(details[0][2]) if isinstance(details, list) and details else type(error).__name__
