"""The `dialbus` command: `run` starts all, `call` has it call somebody, `trace` tells of a call, `phone` is one."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dialbus.config import ConfigError, load, parse_host_port
from dialbus_cli import outgoing, supervisor, trace

OPTIONS = {
    "http": "DIALBUS_HTTP_ADDR",
    "handler": "DIALBUS_UA_HANDLER_URL",
    "external_ip": "DIALBUS_EXTERNAL_IP",
    "codecs": "DIALBUS_CODECS",
}
"""Options of `run` that are settings; the services read them from their environment."""
SCALED = ("media", "asr", "tts")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise ValueError
    return number


_count.__name__ = "number of workers"  # argparse names the type in its message


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser("run", help="start nats-server and the six services on this machine")
    run.add_argument("--conf", metavar="FILE", type=Path, help="settings (default: config.toml if there is one)")
    run.add_argument("--http", metavar="ADDR", help="host:port of the client API (http_addr)")
    run.add_argument("--sip", metavar="ADDR:PORT", help="where SIP listens, UDP (ua.addr, ua.udp_port)")
    run.add_argument("--handler", metavar="URL", help="webhook of inbound calls (ua.handler.url)")
    run.add_argument("--external-ip", metavar="IP", help="the address that peers see (external_ip)")
    run.add_argument("--codecs", metavar="NAMES", help="such as g722,pcmu,telephone_event (codecs)")
    run.add_argument("--call", metavar="URI", help="call somebody as soon as everything is ready, and tell how it goes")
    for name in SCALED:
        run.add_argument(f"--{name}", metavar="N", type=_count, default=1, help=f"processes of {name} (default: 1)")
    run.add_argument("--run-dir", metavar="DIR", type=Path, help="where logs stay (default: a temporary folder)")


def settings(arguments: argparse.Namespace) -> dict[str, str]:
    """The environment variables that the options of `run` stand for. Raises ConfigError."""
    values = {variable: value for name, variable in OPTIONS.items() if (value := getattr(arguments, name)) is not None}
    if arguments.handler is not None:
        # It stands for the handlers of the file, all of them; more can be named in the environment.
        values["DIALBUS_UA_HANDLER_URLS"] = os.environ.get("DIALBUS_UA_HANDLER_URLS", "")
    if arguments.conf is not None:
        values["DIALBUS_CONF"] = str(arguments.conf.absolute())
    if arguments.sip is not None:
        try:
            sip = parse_host_port(arguments.sip)
        except ValueError as error:
            raise ConfigError(f"--sip: {error}, got {arguments.sip!r}") from None
        values["DIALBUS_UA_ADDR"], values["DIALBUS_UA_UDP_PORT"] = sip.host, str(sip.port)
    return values


def _run(arguments: argparse.Namespace) -> int:
    try:
        given = settings(arguments)
        os.environ.update(given)
        loaded = load()
    except ConfigError as error:
        for line in error.lines:
            print(f"dialbus: config: {line}", file=sys.stderr)
        return 2
    for warning in loaded.warnings:
        print(f"dialbus: config: {warning}", file=sys.stderr)
    workers = {name: getattr(arguments, name) for name in SCALED}
    return supervisor.run(supervisor.Plan(loaded, workers, arguments.run_dir, arguments.call))


def _call(arguments: argparse.Namespace) -> int:
    token = arguments.token or os.environ.get("DIALBUS_HTTP_TOKEN")
    return outgoing.main(arguments.server, arguments.address, token, arguments.say)


def _phone(arguments: argparse.Namespace) -> int:
    try:
        from dialbus_cli import phone
    except ModuleNotFoundError as error:
        print(f"dialbus: phone needs {error.name}: pip install 'dialbus-cli[phone]'", file=sys.stderr)
        return 2
    return phone.main(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dialbus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands)
    _add_call(commands)
    _add_phone(commands)
    trace.add_parser(commands)
    return parser


def _add_call(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    call = commands.add_parser("call", help="let a running dialbus call somebody, and tell how it goes")
    call.add_argument("address", metavar="URI", help="whom to call: sip:user@host:port")
    call.add_argument("--say", metavar="TEXT", help="speak this after the answer, then hang up")
    call.add_argument("--server", metavar="URL", default="ws://127.0.0.1:8080", help="the API (default: %(default)s)")
    call.add_argument("--token", metavar="TOKEN", help="http_token of the server (default: DIALBUS_HTTP_TOKEN)")


def _add_phone(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    phone = commands.add_parser("phone", help="call a SIP address, or wait for a call")
    phone.add_argument("address", nargs="?", help="whom to call: sip:user@host:port")
    phone.add_argument("--listen", action="store_true", help="wait for a call and answer it")
    phone.add_argument("--ring", metavar="S", type=float, default=0.5, help="--listen: answer after S seconds")
    phone.add_argument("--refuse", type=int, choices=(480, 486, 603), help="--listen: refuse the call with this code")
    phone.add_argument("--say", metavar="WAV", type=Path, help="the caller's voice")
    phone.add_argument("--record", metavar="WAV", type=Path, help="write what is heard")
    phone.add_argument("--seconds", metavar="N", type=float, default=None, help="hang up N seconds after the answer")
    phone.add_argument("--dtmf", metavar="DIGITS", default="", help="keys to press after the voice")
    phone.add_argument("--host", metavar="IP", help="own address (default: the one that reaches the callee)")
    phone.add_argument("--port", metavar="N", type=int, default=0, help="own SIP port (default: a free one)")
    phone.add_argument("--user", metavar="NAME", default="dialbus-phone", help="own user name")
    phone.add_argument("--codec", choices=("pcmu", "pcma"), default="pcmu", help="codec offered first")
    when = phone.add_mutually_exclusive_group()
    when.add_argument(
        "--wait-before-say", metavar="S", type=float, default=0.0, help="speak S seconds after the answer"
    )
    when.add_argument("--after-greeting", action="store_true", help="speak when the other side has spoken and stopped")


def main(argv: Sequence[str] | None = None) -> None:
    """The command's entry point; ends with its exit code."""
    arguments = _parser().parse_args(argv)
    sys.exit({"run": _run, "call": _call, "phone": _phone, "trace": trace.main}[arguments.command](arguments))


if __name__ == "__main__":
    main()
