"""Start, kill, freeze and stop brokers of a real Apache Kafka on this machine (KRaft, small memory, 127.0.0.1 only).

A cluster of one broker is ready in about four seconds and takes some 200 MB. No broker outlives the process that
started it, not even one that is killed: the kernel ends them with it where `setpriv` exists (every Linux).
"""

import asyncio
import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from tests.kafka.jars import jars, java
from tests.waiting import HANG_S

HOST = "127.0.0.1"
ADMIN, ADMIN_PASSWORD = "admin", "admin-secret"
MECHANISM = "SCRAM-SHA-256"

# The kernel ends a process when the *thread* that started it ends, so all brokers are started by one that never does.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="kafka-starter")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _java(*options: str, main: str) -> list[str]:
    # One compiler, one collector, small stacks: measured at 170 to 270 MB per broker under the tests' load.
    base = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", *options]
    return [java(), *base, "-cp", f"{jars()}/*", main]


class Broker:
    """One node: broker and controller in one process."""

    def __init__(self, node_id: int, folder: Path, port: int, controller_port: int) -> None:
        """Name the node's ports; nothing runs yet."""
        self.node_id = node_id
        self.folder = folder
        self.port = port
        self.controller_port = controller_port
        self.properties = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process's number; the broker must run."""
        assert self._process is not None, f"broker {self.node_id} does not run"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process, without waiting until it serves."""
        assert not self.alive, f"broker {self.node_id} runs already"
        memory = ["-Xms160m", "-Xmx160m", "-Xss256k", "-XX:MaxMetaspaceSize=128m", "-XX:ReservedCodeCacheSize=48m"]
        command = [*_java(*memory, "-XX:CICompilerCount=1", main="kafka.Kafka"), str(self.properties)]
        setpriv = shutil.which("setpriv")
        if setpriv is not None:
            command = [setpriv, "--pdeathsig", "KILL", *command]
        self._process = _STARTER.submit(self._spawn, command).result()

    def _spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with (self.folder / "output").open("ab") as output:
            # A session of its own, so that Ctrl-C reaches the process that started it first.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def kill(self) -> None:
        """End the process at once, as kill -9 or a power failure of the machine would."""
        self._signal(signal.SIGKILL)
        self._wait(HANG_S)

    def pause(self) -> None:
        """Freeze the process: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the process in an orderly way: it hands its partitions over first."""
        self._signal(signal.SIGTERM)
        self._wait(HANG_S)

    def output(self) -> str:
        """Return what the process has written, for messages about failures."""
        return (self.folder / "output").read_text(encoding="utf-8", errors="replace")[-4_000:]

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _wait(self, timeout_s: float) -> None:
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(HANG_S)


class Cluster:
    """One or three brokers in a folder of their own, which is removed at the end.

    Example:
        with Cluster() as kafka:
            ...  # kafka.bootstrap, kafka.log, kafka.brokers[0].kill()
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        port: int | None = None,
        users: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a cluster.

        Args:
            brokers: how many.
            port: of the first broker, the others count up from it; without it, free ones.
            users: names and passwords; with it, clients must log in (SCRAM-SHA-256), and nobody but `admin` may do
                anything before it was allowed.
            settings: of the brokers, beside or in place of those given here.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="unship-kafka-"))
        self.users = None if users is None else {ADMIN: ADMIN_PASSWORD, **users}
        self._settings = dict(settings or {})
        self._cluster_id = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")
        self.brokers = []
        for node_id in range(1, brokers + 1):
            own = free_port() if port is None else port + node_id - 1
            self.brokers.append(Broker(node_id, self.folder / str(node_id), own, free_port()))

    @property
    def bootstrap(self) -> str:
        """Return the brokers' addresses as Kafka's clients take them."""
        return ",".join(f"{HOST}:{broker.port}" for broker in self.brokers)

    @property
    def log(self) -> str:
        """Return the address as unship's configuration takes it."""
        return f"kafka://{self.bootstrap}"

    def client(self, user: str = ADMIN) -> dict[str, Any]:
        """Return the arguments with which any aiokafka client connects."""
        options: dict[str, Any] = {"bootstrap_servers": self.bootstrap}
        if self.users is not None:
            options |= {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": MECHANISM}
            options |= {"sasl_plain_username": user, "sasl_plain_password": self.users[user]}
        return options

    def __enter__(self) -> "Cluster":
        """Start the brokers and wait until they take records."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the brokers and remove their data."""
        self.close()

    def start(self) -> None:
        """Format the brokers' folders, start them, and wait until they take records."""
        formatting = [self._format(broker) for broker in self.brokers]
        for process in formatting:
            output, _ = process.communicate()
            assert process.returncode == 0, output.decode(errors="replace")
        for broker in self.brokers:
            broker.start()
        self.wait_ready()

    def wait_ready(self, timeout_s: float = HANG_S) -> None:
        """Wait until every broker that runs is known to the others and a record can be written.

        Raises:
            TimeoutError: with what the brokers wrote.
        """
        deadline = time.monotonic() + timeout_s
        while (obstacle := self._obstacle()) is not None:
            if time.monotonic() > deadline or not any(broker.alive for broker in self.brokers):
                written = "\n".join(f"broker {broker.node_id}: {broker.output()}" for broker in self.brokers)
                raise TimeoutError(
                    f"Kafka is not ready within {timeout_s} s: {obstacle}; the brokers wrote:\n{written}"
                )
            time.sleep(0.05)

    def close(self) -> None:
        """End the brokers and remove their data."""
        for broker in self.brokers:
            # Nothing of theirs is kept, so there is no reason to wait for an orderly end.
            if broker.alive:
                broker.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _obstacle(self) -> str | None:
        """Return why no record can be written yet; None if one was."""
        expected = [broker for broker in self.brokers if broker.alive]
        for broker in expected:
            # Asked before aiokafka is, which writes a line for every connection that is refused.
            with socket.socket() as probe:
                if probe.connect_ex((HOST, broker.port)):
                    return f"broker {broker.node_id} does not listen"
        try:
            return asyncio.run(self._write_one({broker.node_id for broker in expected}))
        except (KafkaError, OSError, TimeoutError) as error:
            return repr(error)

    async def _write_one(self, expected: set[int]) -> str | None:
        options = {**self.client(), "request_timeout_ms": 5_000}
        admin = AIOKafkaAdminClient(**options)
        try:
            await admin.start()
            known = {broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]}
            if not expected <= known:
                return f"of the brokers {sorted(expected)} only {sorted(known)} know each other"
            await admin.create_topics([NewTopic("ready", 1, min(3, len(known)))])
            producer = AIOKafkaProducer(**options, acks="all")
            try:
                await producer.start()
                await producer.send_and_wait("ready", b"ready")
            finally:
                await producer.stop()
            await admin.delete_topics(["ready"])
        finally:
            await admin.close()
        return None

    def _format(self, broker: Broker) -> "subprocess.Popen[bytes]":
        broker.folder.mkdir()
        properties = {**self._properties(broker), **self._settings}
        broker.properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        command = [*_java("-Xmx96m", main="kafka.tools.StorageTool"), "format", f"--cluster-id={self._cluster_id}"]
        command += ["-c", str(broker.properties)]
        for user, password in (self.users or {}).items():
            command += ["--add-scram", f"{MECHANISM}=[name={user},password={password}]"]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _properties(self, broker: Broker) -> dict[str, str]:
        replication, in_sync = min(3, len(self.brokers)), 2 if len(self.brokers) >= 3 else 1
        clients = "PLAINTEXT" if self.users is None else "SASL_PLAINTEXT"
        voters = ",".join(f"{each.node_id}@{HOST}:{each.controller_port}" for each in self.brokers)
        address = f"{clients}://{HOST}:{broker.port}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(broker.node_id),
            "controller.quorum.voters": voters,
            "listeners": f"{address},CONTROLLER://{HOST}:{broker.controller_port}",
            "advertised.listeners": address,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{clients}:{clients}",
            "inter.broker.listener.name": clients,
            "log.dirs": str(broker.folder / "data"),
            "default.replication.factor": str(replication),
            "min.insync.replicas": str(in_sync),
            "offsets.topic.replication.factor": str(replication),
            "transaction.state.log.replication.factor": str(replication),
            "transaction.state.log.min.isr": str(in_sync),
            "share.coordinator.state.topic.replication.factor": str(replication),
            "share.coordinator.state.topic.min.isr": str(in_sync),
            **SMALL_AND_QUICK,
        }
        return properties if self.users is None else properties | _secured()


SMALL_AND_QUICK = {
    "num.partitions": "4",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "replica.lag.time.max.ms": "4000",
    "controller.quorum.election.timeout.ms": "600",
    "controller.quorum.fetch.timeout.ms": "1200",
    "controller.quorum.election.backoff.max.ms": "300",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "background.threads": "2",
    "log.cleaner.threads": "1",
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": "8388608",
}
"""What keeps a broker small, and lets it notice the death of another, or what to compact, within seconds."""


def _secured() -> dict[str, str]:
    login = "org.apache.kafka.common.security.scram.ScramLoginModule"
    return {
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # The controllers talk in the clear and without a name, on this machine only.
        "super.users": f"User:{ADMIN};User:ANONYMOUS",
        f"listener.name.sasl_plaintext.{MECHANISM.lower()}.sasl.jaas.config": (
            f'{login} required username="{ADMIN}" password="{ADMIN_PASSWORD}";'
        ),
    }
