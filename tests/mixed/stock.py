"""A real stock NIXL agent in a process of its own, and a remote control for it.

Not a test. Run as a program it is the agent: a request on each line of its input, an answer on each of its output, both
JSON. It ends with os._exit, since the wheel's libraries crash an interpreter that ends in the usual way. What
the agent logs goes to a file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

Answer = str | bool | list[str] | None


class Stock:
    """A stock agent. Its log is read with `log`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.port = name, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = folder / f"{name}.log"
        # Its UCX needs nothing but sockets here; Baton's settings are none of its business.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("BATON_", "TRTLLM_"))}
        environment |= {"UCX_TLS": "tcp,self", "PYTHONPATH": os.environ["NIXL_HOME"]}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, name, str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        assert self._read() == "ready", self.log

    def ask(self, what: str, *arguments: str | int) -> Answer:
        """Has the agent do something. The answer is an "error: ..." where it raises."""
        self._process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._read()

    def loads_within(self, name: str, seconds: float) -> bool:
        """Waits as TensorRT-LLM's stock wrapper does, which has no limit, until the agent knows the name."""
        return self._poll(lambda: self.ask("check", name), seconds)

    def says_within(self, text: str, seconds: float) -> bool:
        """Whether the log has a text by then."""
        return self._poll(lambda: text in self.log, seconds)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(errors="replace")

    def is_alive(self) -> bool:
        """Whether the process is there and answers."""
        return self._process.poll() is None and self.ask("ping") == "pong"

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    @staticmethod
    def _poll(done, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def _read(self) -> Answer:
        line = self._process.stdout.readline()
        assert line, f"the stock agent has ended: {self.log}"
        return json.loads(line)


def free_port() -> int:
    """A port that was free a moment ago: the agent takes no 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(name: str, port: int) -> None:
    """The agent's process."""
    from nixl_cu12._api import nixl_agent, nixl_agent_config

    config = nixl_agent_config(
        enable_prog_thread=False, enable_listen_thread=True, listen_port=port, backends=["UCX"]
    )
    agent = nixl_agent(name, config)

    def take_notifications() -> list[str]:
        return [message.decode() for messages in agent.get_new_notifs().values() for message in messages]

    does = {
        "ping": lambda: "pong",
        "blob": lambda: agent.get_agent_metadata().hex(),
        "load": lambda blob: _text(agent.add_remote_agent(bytes.fromhex(blob))),
        "fetch": lambda name, ip, port: agent.fetch_remote_metadata(name, ip, port),
        "send": lambda ip, port: agent.send_local_metadata(ip, port),
        "check": lambda name: agent.check_remote_metadata(name),
        "notify": lambda name, message: agent.send_notif(name, message.encode()),
        "heard": take_notifications,
    }
    _answer("ready")
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        try:
            _answer(does[what](*arguments))
        except Exception as error:  # whatever the agent raises is its answer
            _answer(f"error: {type(error).__name__}: {error}")
    os._exit(0)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _answer(what: Answer) -> None:
    OUT.write(json.dumps(what) + "\n")
    OUT.flush()


if __name__ == "__main__":
    # The package logs to standard output; that is to be ours alone.
    OUT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.argv[1], int(sys.argv[2]))
