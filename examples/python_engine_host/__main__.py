"""python_engine_host: one rank of a serving engine with TensorRT-LLM's Python runtime, as far as KV transfer can see.

    PYTHONPATH=build/python/plain-open target/python/bin/python examples/python_engine_host --help

`baton demo --seam s2` drives many of them. It takes the command line and the commands of baton-engine-host and
answers with the same events, so that one driver serves both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from console import Console, Events
from failure import Failure, Kind, Stopped
from options import Options, parse_options


def main() -> int:
    events = Events()
    options: list[Options] = []
    code = _reporting(events, lambda: options.append(parse_options(sys.argv[1:])))
    if not options:
        return code
    events.reserve_stdout()
    return _play(options[0], events)


def _play(options: Options, events: Events) -> int:
    # The packages that these need may be missing too: an error like any other.
    try:
        from context import Context
        from generation import Generation
        from rank import Rank, Role
    except ImportError as error:
        text = _missing(error)
        return _reporting(events, lambda: _fail(Kind.USAGE, text))
    roles: list[Role] = []
    ranks: list[Rank] = []

    def serve() -> None:
        ranks.append(Rank(options, Console(), events))
        roles.append((Context if options.is_context else Generation)(ranks[0]))
        roles[0].run()

    code = _reporting(events, serve)
    for role in roles:
        role.close()
    for rank in ranks:
        rank.close()
    return 1 if code == 0 and any(role.corrupt for role in roles) else code


def _missing(error: ImportError) -> str:
    """What was not found, and what has to be done about it, wherever this host is installed."""
    return (
        f"{error} (Python {sys.executable}); this host needs the packages numpy and pyzmq: install them for this "
        "Python, or name one that has them with `baton demo --python FILE`"
    )


def _reporting(events: Events, serve: Callable[[], None]) -> int:
    """Runs `serve` and turns however it ends into an exit code, saying an error aloud before anything is torn down."""
    try:
        serve()
    except Stopped:
        return 0
    except Failure as failure:
        return _report(events, failure.kind.value, failure.peer, failure.text, failure.kind.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        return _report(events, "internal", "", f"{type(error).__name__}: {error}", 1)
    return 0


def _report(events: Events, kind: str, peer: str, text: str, code: int) -> int:
    try:
        events.emit("error", kind=kind, peer=peer, text=text)
    except Stopped:
        pass  # nobody listens any more; the exit code says it
    return code


def _fail(kind: Kind, text: str) -> None:
    raise Failure(kind, text)


if __name__ == "__main__":
    sys.exit(main())
