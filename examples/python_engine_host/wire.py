"""The ZMQ sockets of a rank: an inbox that anyone may write to, and one link to each peer.

As in TensorRT-LLM's Python runtime every rank binds a ROUTER and talks to others through DEALERs of its own, so
each direction has its connection. A link also watches that connection: a peer whose process has ended is noticed
when the kernel closes it, one that has stopped by ZMQ's heartbeats, both well within 5 s. No socket here is shared
between threads.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import zmq
from zmq.utils.monitor import recv_monitor_message

from failure import Failure, Kind
from messages import LARGEST_FRAME_BYTES, Malformed, Message, decode, encode

_DIAL_LIMIT_S = 5.0
_HEARTBEAT_MS = 500
_HEARTBEAT_LIMIT_MS = 2500
_LINGER_MS = 1000
_ENDPOINT = re.compile(r"[A-Za-z0-9_.-]{1,255}:[0-9]{1,5}|\[[0-9A-Fa-f:.]{2,45}\]:[0-9]{1,5}")
_WATCHED = zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The ZMQ context of a process; closing it takes at most the time of the last words."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.linger = _LINGER_MS
    return context


class Inbox:
    """The ROUTER that other ranks, and strangers, write to."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_FRAME_BYTES)
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"127.0.0.1:{port}"

    def receive(self) -> Iterator[tuple[bytes, Message | Malformed]]:
        """What has come since the last call: who sent it, for reply(), and the message or what is wrong with it."""
        while True:
            try:
                sender, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield sender, decode(frames)
            except Malformed as error:
                yield sender, error

    def reply(self, sender: bytes, message: Message) -> None:
        """Answers on the connection that a message came from; dropped where that has gone."""
        try:
            self.socket.send_multipart([sender, *encode(message)], zmq.NOBLOCK)
        except zmq.ZMQError:
            pass  # ROUTER drops what it cannot route; what it cannot queue is lost as well


class Link:
    """A connection to the inbox of one peer, and whether it holds."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], peer: str, endpoint: str) -> None:
        """Raises Failure(PROTOCOL) where the endpoint is none."""
        self.peer = peer
        self.endpoint = endpoint
        address = _address(peer, endpoint)
        self.socket = _new_dealer(context)
        self.monitor = self.socket.get_monitor_socket(_WATCHED)  # before the first event that it must not miss
        self.socket.connect(address)
        self._is_up = False
        self._dial_deadline = time.monotonic() + _DIAL_LIMIT_S

    def send(self, message: Message) -> None:
        """Raises Failure(PEER_LOST) where the peer has not taken in what was sent before."""
        send(self.socket, self.peer, message)

    def replies(self) -> Iterator[Message]:
        """What the peer has answered on this connection. Raises Failure(PROTOCOL)."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                yield decode(frames)
            except Malformed as error:
                text = f"{self.peer} answers with what is no message: {error}"
                raise Failure(Kind.PROTOCOL, text, self.peer) from error

    def loss(self) -> str | None:
        """Why the peer counts as gone; None while it does not."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor, zmq.NOBLOCK)["event"]
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self._is_up = True
            elif self._is_up:
                return f"{self.peer} at {self.endpoint} is gone: its control connection has broken"
        if not self._is_up and time.monotonic() > self._dial_deadline:
            return f"{self.peer} at {self.endpoint} could not be reached within {_DIAL_LIMIT_S:g} s"
        return None

    def close(self) -> None:
        self.socket.disable_monitor()
        self.socket.close()


def dial(context: zmq.Context[zmq.Socket[bytes]], peer: str, endpoint: str) -> zmq.Socket[bytes]:
    """A DEALER to the inbox at "host:port", unwatched. Raises Failure(PROTOCOL) where that is no endpoint."""
    address = _address(peer, endpoint)
    socket = _new_dealer(context)
    socket.connect(address)
    return socket


def send(socket: zmq.Socket[bytes], peer: str, message: Message) -> None:
    """Sends on a DEALER without waiting. Raises Failure(PEER_LOST) where its queue is full."""
    try:
        socket.send_multipart(encode(message), zmq.NOBLOCK)
    except zmq.Again as error:
        text = f"{peer} takes in nothing any more: {message.NAME} cannot be sent"
        raise Failure(Kind.PEER_LOST, text, peer) from error


def _address(peer: str, endpoint: str) -> str:
    port = int(endpoint.rpartition(":")[2]) if _ENDPOINT.fullmatch(endpoint) else 0
    if not 0 < port < 65536:
        raise Failure(Kind.PROTOCOL, f'{peer}: "{endpoint}" is no endpoint; expected host:port', peer)
    return f"tcp://{endpoint}"


def _new_dealer(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_FRAME_BYTES)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_LIMIT_MS)
    return socket
