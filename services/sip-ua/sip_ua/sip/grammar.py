"""The lexical rules of SIP as regular expressions, each under its rule of RFC 3261 §25.1.

Every expression runs in linear time: alternatives start with different characters and nothing is matched
twice. Line folding is undone by the parser, so white space inside a value is SP or HTAB only.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NoReturn, TypeAlias

MAX_PARAMS: Final = 64
"""How many parameters one header value or URI of a peer's may have."""
_OUR_PARAMS: Final = 4  # tag, received, rport: what we add to a peer's value must not break it

Params: TypeAlias = tuple[tuple[str, str | None], ...]
"""Parameters in order, as written; None for a flag such as `lr`, quotes kept."""


class GrammarError(ValueError):
    """Text that a rule of RFC 3261 §25 does not derive; `rule` names it, `text` is what was offered."""

    def __init__(self, rule: str, text: str = "") -> None:
        super().__init__(rule, text)
        self.rule = rule
        self.text = text

    def __str__(self) -> str:
        return f"Bad {self.rule}: {self.text[:80]!r}" if self.text else f"Bad {self.rule}"


def bad(rule: str, text: str = "") -> NoReturn:
    """Raise GrammarError."""
    raise GrammarError(rule, text)


# SWS = [LWS], after unfolding
SWS: Final = r"[ \t]*"
# token = 1*(alphanum / "-" / "." / "!" / "%" / "*" / "_" / "+" / "`" / "'" / "~" )
TOKEN: Final = r"[A-Za-z0-9\-.!%*_+`'~]+"
# quoted-string = SWS DQUOTE *(qdtext / quoted-pair ) DQUOTE
QUOTED: Final = r'"(?:[^"\\]++|\\.)*+"'
# gen-value = token / host / quoted-string; via-received is an IPv6 address without brackets
GEN_VALUE: Final = rf"(?:{QUOTED}|[A-Za-z0-9\-.!%*_+`'~\[\]:]+)"
# word, the alphabet of Call-ID: callid = word [ "@" word ]
WORD: Final = r"""[A-Za-z0-9\-.!%*_+`'~()<>:\\"/\[\]?{}]+"""
# escaped = "%" HEXDIG HEXDIG; unreserved = alphanum / mark
ESCAPED: Final = r"%[0-9A-Fa-f]{2}"
UNRESERVED: Final = r"A-Za-z0-9\-_.!~*'()"

TOKEN_RE: Final = re.compile(TOKEN)
CALL_ID_RE: Final = re.compile(rf"{WORD}(?:@{WORD})?")
# CSeq = 1*DIGIT LWS Method
CSEQ_RE: Final = re.compile(rf"([0-9]+)[ \t]+({TOKEN})")
# user = 1*( unreserved / escaped / user-unreserved )
USER_RE: Final = re.compile(rf"(?:[{UNRESERVED}&=+$,;?/]|{ESCAPED})+")
# password = *( unreserved / escaped / "&" / "=" / "+" / "$" / "," )
PASSWORD_RE: Final = re.compile(rf"(?:[{UNRESERVED}&=+$,]|{ESCAPED})*")
# pname, pvalue = 1*paramchar
URI_PARAM_RE: Final = re.compile(rf"(?:[{UNRESERVED}\[\]/:&+$]|{ESCAPED})+")
# hname, hvalue = *( hnv-unreserved / unreserved / escaped )
URI_HEADER_RE: Final = re.compile(rf"(?:[{UNRESERVED}\[\]/?:+$]|{ESCAPED})*")
# global-number, local-number: RFC 3966 §3, with visual separators
TEL_RE: Final = re.compile(r"\+?[().\-]*[0-9A-Fa-f*#][0-9A-Fa-f*#().\-]*")
# hostname = *( domainlabel "." ) toplabel [ "." ]; "_" as well, for container and Windows machine names
_LABEL: Final = r"[A-Za-z0-9_]+(?:-+[A-Za-z0-9_]+)*"
HOSTNAME_RE: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
# host as it may stand in text, before `check_host`
HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)"
# sent-protocol LWS sent-by, where SLASH and COLON may be surrounded by white space
VIA_RE: Final = re.compile(rf"(?i:SIP){SWS}/{SWS}2\.0{SWS}/{SWS}({TOKEN})[ \t]+({HOST})(?:{SWS}:{SWS}([0-9]{{1,5}}))?")
# display-name = *(token LWS) / quoted-string, LAQUOT addr-spec RAQUOT
NAME_ADDR_RE: Final = re.compile(rf"({QUOTED}{SWS}|[A-Za-z0-9\-.!%*_+`'~ \t]*+)<([^<>]*)>")
GENERIC_PARAM_RE: Final = re.compile(rf"{SWS};{SWS}({TOKEN})(?:{SWS}={SWS}({GEN_VALUE}))?")
# one element of a comma-list; what follows an unbalanced quote or bracket stays one piece
_LIST_PIECE_RE: Final = re.compile(rf'(?:[^",<]++|{QUOTED}|<[^>]*+>|["<].*\Z)*+', re.DOTALL)
_ESCAPE_RE: Final = re.compile(r'(["\\\x00-\x08\x0b\x0c\x0e-\x1f\x7f])')
_QUOTED_PAIR_RE: Final = re.compile(r"\\(.)", re.DOTALL)


def split_list(value: str) -> tuple[str, ...]:
    """The elements of a comma-list, trimmed; commas in quotes and <> do not separate. Empty text gives ().

    Never fails: an unbalanced quote makes the rest one element, which its own rule then refuses.
    """
    if not value.strip(" \t"):
        return ()
    pieces: list[str] = []
    position = 0
    while True:
        match = _LIST_PIECE_RE.match(value, position)
        end = match.end() if match else position
        pieces.append(value[position:end].strip(" \t"))
        if end >= len(value):
            return tuple(pieces)
        position = end + 1  # the comma


def parse_params(text: str, position: int = 0) -> Params:
    """`*( SEMI generic-param )` from `position` to the end of the text.

    Raises GrammarError for anything else, for a name that comes twice (RFC 3261 §7.3.1) and for too many of them.
    """
    params: list[tuple[str, str | None]] = []
    names: set[str] = set()
    end = len(text.rstrip(" \t"))
    while position < end:
        match = GENERIC_PARAM_RE.match(text, position)
        if match is None:
            bad("parameter", text[position:])
        name, value = match[1], match[2]
        if len(params) >= MAX_PARAMS + _OUR_PARAMS:
            bad("number of parameters")
        if name.lower() in names:
            bad("repeated parameter", name)
        names.add(name.lower())
        params.append((name, value))
        position = match.end()
    return tuple(params)


def format_params(params: Params) -> str:
    """The parameters as `;name=value;flag`."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params)


def get_param(params: Params, name: str) -> str | None:
    """The value of a parameter, unquoted; "" for a flag, None when absent. Names are case-blind."""
    wanted = name.lower()
    for key, value in params:
        if key.lower() == wanted:
            return "" if value is None else unquote(value)
    return None


def quote(text: str) -> str:
    """Text as a quoted-string."""
    return '"' + _ESCAPE_RE.sub(r"\\\1", text) + '"'


def unquote(value: str) -> str:
    """The text of a quoted-string; anything else comes back as it is."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _QUOTED_PAIR_RE.sub(r"\1", value[1:-1])
    return value


def is_token(text: str) -> bool:
    """Whether the text is a token."""
    return TOKEN_RE.fullmatch(text) is not None


def check_host(text: str) -> str:
    """A host without the brackets of an IPv6reference; raises GrammarError when it is none."""
    address = text
    if text.startswith("["):
        if not text.endswith("]"):
            bad("host", text)
        address = text[1:-1]
    try:
        if ":" in address:
            IPv6Address(address)
            if "%" in address:
                bad("host", text)
        elif address is not text:
            bad("host", text)
        elif address.replace(".", "").isdigit():
            IPv4Address(address)
        elif len(address) > 255 or not HOSTNAME_RE.fullmatch(address):
            bad("host", text)
    except AddressValueError:
        bad("host", text)
    return address


def check_port(text: str) -> int:
    """A port, 1 to 65535; raises GrammarError otherwise."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        bad("port", text)
    return int(text)


def format_host(host: str) -> str:
    """A host as it stands in a URI or Via: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host
