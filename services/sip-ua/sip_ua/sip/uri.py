"""SIP, SIPS and tel URIs, and the name-addr around them (RFC 3261 §19.1 and §25.1, RFC 3966).

User part, password, parameters and headers are kept as written, escapes included: what came in goes out.
"""

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote as percent_encode
from urllib.parse import unquote as percent_decode

from sip_ua.sip.grammar import (
    MAX_PARAMS,
    NAME_ADDR_RE,
    PASSWORD_RE,
    TEL_RE,
    TOKEN_RE,
    URI_HEADER_RE,
    URI_PARAM_RE,
    USER_RE,
    GrammarError,
    Params,
    bad,
    check_host,
    check_port,
    format_host,
    format_params,
    get_param,
    parse_params,
    quote,
    unquote,
)

SCHEMES: Final = ("sip", "sips", "tel")
# RFC 3261 §19.1.4: these never match when only one URI has them.
_VISUAL_SEPARATORS: Final = str.maketrans("", "", "-.()")


class UnsupportedScheme(GrammarError):
    """A well-formed URI whose scheme is none of ours; a Request-URI with it is answered 416."""

    def __init__(self, text: str) -> None:
        super().__init__("URI scheme", text)


@dataclass(frozen=True, slots=True)
class Uri:
    """One URI. Every instance is valid by its grammar: construction raises GrammarError otherwise.

    For tel, `user` is the number and `host` is empty. An IPv6 `host` has no brackets.
    """

    scheme: str
    user: str | None
    host: str
    port: int | None = None
    params: Params = ()
    headers: tuple[tuple[str, str], ...] = ()
    password: str | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UnsupportedScheme(f"{self.scheme}:")
        if self.scheme == "tel":
            _check_tel(self)
        else:
            _check_sip(self)
        names = [name.lower() for name, _ in self.params]
        if len(set(names)) != len(names):
            bad("repeated URI parameter", str(self))
        for name, value in self.params:
            if not URI_PARAM_RE.fullmatch(name) or not (value is None or URI_PARAM_RE.fullmatch(value)):
                bad("URI parameter", f"{name}={value}")

    def __str__(self) -> str:
        if self.scheme == "tel":
            return f"tel:{self.user}{format_params(self.params)}"
        secret = "" if self.password is None else f":{self.password}"
        userinfo = "" if self.user is None else f"{self.user}{secret}@"
        port = "" if self.port is None else f":{self.port}"
        headers = "&".join(f"{name}={value}" for name, value in self.headers)
        tail = f"{format_params(self.params)}{'?' + headers if headers else ''}"
        return f"{self.scheme}:{userinfo}{format_host(self.host)}{port}{tail}"

    def param(self, name: str) -> str | None:
        """The value of a parameter; "" for a flag such as lr, None when absent."""
        return get_param(self.params, name)

    @property
    def transport(self) -> str | None:
        """The transport parameter in lower case, None when absent."""
        value = self.param("transport")
        return None if value is None else value.lower()

    @property
    def is_loose(self) -> bool:
        """Whether the URI has lr, so that its owner is a loose router (RFC 3261 §16.4)."""
        return self.param("lr") is not None

    @property
    def user_text(self) -> str:
        """The user part with its escapes undone, for people and for dial plans; "" without one."""
        return percent_decode(self.user or "", errors="replace")

    def with_param(self, name: str, value: str | None = None) -> "Uri":
        """This URI with one parameter set, in place or at the end."""
        if self.param(name) is None:
            return replace(self, params=(*self.params, (name, value)))
        wanted = name.lower()
        return replace(self, params=tuple((k, value) if k.lower() == wanted else (k, v) for k, v in self.params))

    def without_params(self, *names: str) -> "Uri":
        """This URI without the parameters named, or without any when none is named."""
        gone = {name.lower() for name in names}
        kept = tuple(param for param in self.params if gone and param[0].lower() not in gone)
        return replace(self, params=kept)

    def without_headers(self) -> "Uri":
        """This URI without `?headers`, as it must stand in a Request-URI (RFC 3261 §19.1.1 table 1)."""
        return replace(self, headers=())

    def without_password(self) -> "Uri":
        """This URI fit for logs and clients."""
        return replace(self, password=None)


def _check_sip(uri: Uri) -> None:
    if uri.user is not None and not USER_RE.fullmatch(uri.user):
        bad("user", uri.user)
    if uri.password is not None and (uri.user is None or not PASSWORD_RE.fullmatch(uri.password)):
        bad("password")
    if check_host(uri.host) is not uri.host:
        bad("host", uri.host)
    if uri.port is not None and not 0 < uri.port < 65536:
        bad("port", str(uri.port))
    for name, value in uri.headers:
        if not name or not URI_HEADER_RE.fullmatch(name) or not URI_HEADER_RE.fullmatch(value):
            bad("URI header", f"{name}={value}")


def _check_tel(uri: Uri) -> None:
    if uri.user is None or not TEL_RE.fullmatch(uri.user):
        bad("telephone number", uri.user or "")
    if uri.host or uri.port is not None or uri.headers or uri.password is not None:
        bad("tel URI", uri.user)


def escape_user(text: str) -> str:
    """Any text as a user part: what the grammar does not allow is escaped as UTF-8."""
    return percent_encode(text, safe="-_.!~*'()&=+$,;?/")


def _split_params(text: str) -> Params:
    """`name=value;flag` of a URI; the names and values are checked by Uri."""
    if text.count(";") >= MAX_PARAMS:
        bad("number of URI parameters")
    params: list[tuple[str, str | None]] = []
    for piece in text.split(";"):
        name, equals, value = piece.partition("=")
        params.append((name, value if equals else None))
    return tuple(params)


def parse_uri(text: str) -> Uri:
    """The URI that is exactly this text. Raises UnsupportedScheme or, for all else, GrammarError."""
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if not colon or not scheme[:1].isalpha() or not TOKEN_RE.fullmatch(scheme):
        bad("URI", text)
    if scheme == "tel":
        number, semicolon, tail = rest.partition(";")
        return Uri("tel", number, "", params=_split_params(tail) if semicolon else ())
    if scheme not in SCHEMES:
        raise UnsupportedScheme(text)
    # "@" stands unescaped nowhere but after userinfo, so user parts with ";", "?" and "/" are safe.
    userinfo, at, tail = rest.rpartition("@")
    user, password = None, None
    if at:
        user, secret_colon, secret = userinfo.partition(":")
        password = secret if secret_colon else None
    tail, question, header_text = tail.partition("?")
    hostport, semicolon, param_text = tail.partition(";")
    host, port = _split_hostport(hostport)
    params = _split_params(param_text) if semicolon else ()
    return Uri(scheme, user, host, port, params, _split_headers(header_text) if question else (), password)


def _split_hostport(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            bad("host", text)
        return check_host(host + bracket), check_port(rest[1:]) if rest else None
    host, colon, port = text.partition(":")
    return check_host(host), check_port(port) if colon else None


def _split_headers(text: str) -> tuple[tuple[str, str], ...]:
    if text.count("&") >= MAX_PARAMS:
        bad("number of URI headers")
    headers: list[tuple[str, str]] = []
    for piece in text.split("&"):
        name, equals, value = piece.partition("=")
        if not equals:
            bad("URI header", piece)
        headers.append((name, value))
    return tuple(headers)


@dataclass(frozen=True, slots=True)
class NameAddr:
    """A URI with a display name ("" for none) and header parameters, as in From, To, Contact and Route."""

    display_name: str
    uri: Uri
    params: Params = ()

    def __post_init__(self) -> None:
        if "\r" in self.display_name or "\n" in self.display_name:
            bad("display name", self.display_name)
        if self.params and parse_params(format_params(self.params)) != self.params:
            bad("parameter", format_params(self.params))

    def __str__(self) -> str:
        name = f"{quote(self.display_name)} " if self.display_name else ""
        return f"{name}<{self.uri}>{format_params(self.params)}"

    def param(self, name: str) -> str | None:
        """The value of a header parameter, unquoted; "" for a flag, None when absent."""
        return get_param(self.params, name)

    @property
    def tag(self) -> str | None:
        """The tag, None when absent."""
        return self.param("tag") or None

    def with_param(self, name: str, value: str | None = None) -> "NameAddr":
        """This address with one header parameter set; `value` is a token, a host or a quoted-string."""
        kept = tuple((k, v) for k, v in self.params if k.lower() != name.lower())
        return replace(self, params=(*kept, (name, value)))

    def with_tag(self, tag: str) -> "NameAddr":
        """This address with its tag set."""
        return self.with_param("tag", tag)

    def without_params(self) -> "NameAddr":
        """Display name and URI alone."""
        return replace(self, params=())


def parse_name_addr(text: str) -> NameAddr:
    """One `name-addr / addr-spec *( SEMI generic-param )`, exactly.

    Without <> everything after the first ";" belongs to the header and the URI may hold no ",", "?" or ";"
    (RFC 3261 §20). Raises UnsupportedScheme or GrammarError.
    """
    text = text.strip(" \t")
    match = NAME_ADDR_RE.match(text)
    if match is not None:
        name = match[1]
        display = unquote(name.rstrip(" \t")) if name.startswith('"') else " ".join(name.split())
        return _checked(NameAddr(display, parse_uri(match[2]), parse_params(text, match.end())))
    end = text.find(";")
    spec = text if end < 0 else text[:end].rstrip(" \t")
    if any(character in spec for character in '<>",? \t'):
        bad("name-addr", text)
    return _checked(NameAddr("", parse_uri(spec), () if end < 0 else parse_params(text, end)))


def _checked(address: NameAddr) -> NameAddr:
    """The address, if its tag is a token (RFC 3261 §25.1 tag-param)."""
    for name, value in address.params:
        if name.lower() == "tag" and not (value and TOKEN_RE.fullmatch(value)):
            bad("tag", value or "")
    return address
