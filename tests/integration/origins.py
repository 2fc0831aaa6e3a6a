"""Where a real Kafka can come from: the scripts of KAFKA_HOME, or a container where a docker engine answers."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "apache/kafka:4.1.0"
CLUSTER_ID = "c3RyZWFtLXJlYy10ZXN0cw"
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 30


class Failed(Exception):
    """A command around the broker failed; the message holds its words."""


@dataclass(frozen=True)
class Launch:
    """What a start needs to know.

    Attributes:
        folder: everything of one broker; its data outlives the process.
        port: where the broker itself answers on 127.0.0.1.
        properties: the settings file, without any placeholder left.
        heap: the largest heap, as Java writes it.
        format_args: arguments of the first formatting, such as `--add-scram ...`.
    """

    folder: Path
    port: int
    properties: Path
    heap: str = "512m"
    format_args: str = ""


class Origin(Protocol):
    """A way to run brokers; a broker is known by its folder."""

    def start(self, launch: Launch) -> None:
        """Start and wait until it answers; again on the same folder to recover. Raises Failed."""

    def stop(self, folder: Path) -> None:
        """Shut down cleanly."""

    def kill(self, folder: Path) -> None:
        """SIGKILL: a crash."""

    def pause(self, folder: Path) -> None:
        """Freeze the process; its connections stay open and nothing answers."""

    def resume(self, folder: Path) -> None:
        """Let a frozen process go on."""

    def end(self, folder: Path) -> list[str]:
        """The command that ends the process in whatever state it is."""


def find() -> Origin | None:
    """KAFKA_HOME, else `../shared/kafka` beside the repository, else a docker engine that answers, else None."""
    for home in (os.environ.get("KAFKA_HOME"), ROOT.parent / "shared" / "kafka"):
        if home and (Path(home) / "bin" / "kafka").is_file():
            return Scripts(Path(home).resolve())
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return Docker()
    return None


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """What the command printed. Raises Failed with its last words."""
    done = subprocess.run(command, env=os.environ | (env or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(
            f"{shlex.join(map(str, command))}: status {done.returncode}: {(done.stderr + done.stdout)[-3000:]}"
        )
    return done.stdout + done.stderr


class Scripts:
    """Brokers run by `bin/kafka start|stop|kill` of a folder."""

    def __init__(self, home: Path) -> None:
        self._script = home / "bin" / "kafka"

    def start(self, launch: Launch) -> None:
        env = {"KAFKA_HEAP": launch.heap, "KAFKA_FORMAT_ARGS": launch.format_args}
        start = (self._script, "start", launch.folder, "--port", str(launch.port), "--properties", launch.properties)
        try:
            run(*start, env=env)
        except Failed as error:
            # One in 64 of the cluster ids that the script draws begins with a dash and is taken for an option.
            if "argument --cluster-id" not in str(error):
                raise
            run(*start, env=env)

    def stop(self, folder: Path) -> None:
        run(self._script, "stop", folder)

    def kill(self, folder: Path) -> None:
        run(self._script, "kill", folder)

    def pause(self, folder: Path) -> None:
        os.kill(self._pid(folder), signal.SIGSTOP)

    def resume(self, folder: Path) -> None:
        os.kill(self._pid(folder), signal.SIGCONT)

    def end(self, folder: Path) -> list[str]:
        return [str(self._script), "kill", str(folder)]

    def _pid(self, folder: Path) -> int:
        return int((folder / "pid").read_text())


class Docker:
    """Brokers in containers that share the host's network and see their folder under the same path."""

    def start(self, launch: Launch) -> None:
        name = self._name(launch.folder)
        known = subprocess.run(["docker", "container", "inspect", name], capture_output=True, check=False)
        if known.returncode == 0:
            n_starts = self._n_starts(name)
            run("docker", "start", name)
        else:
            n_starts = 0
            run(*self._create(name, launch))
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._n_starts(name) == n_starts:
            if run("docker", "inspect", "-f", "{{.State.Running}}", name).strip() != "true":
                raise Failed(f"the broker died while starting: {run('docker', 'logs', '--tail', '30', name)}")
            if time.monotonic() > deadline:
                raise Failed(f"the broker is not up after {START_TIMEOUT_S} s; see docker logs {name}")
            time.sleep(0.2)

    def stop(self, folder: Path) -> None:
        run("docker", "stop", "-t", str(STOP_TIMEOUT_S), self._name(folder))

    def kill(self, folder: Path) -> None:
        run("docker", "kill", self._name(folder))

    def pause(self, folder: Path) -> None:
        run("docker", "pause", self._name(folder))

    def resume(self, folder: Path) -> None:
        run("docker", "unpause", self._name(folder))

    def end(self, folder: Path) -> list[str]:
        return ["docker", "rm", "-f", self._name(folder)]

    def _name(self, folder: Path) -> str:
        return f"stream-rec-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"

    def _n_starts(self, name: str) -> int:
        # The port opens before the broker is unfenced; this line comes after, once a start.
        return run("docker", "logs", name).count("Kafka Server started")

    def _create(self, name: str, launch: Launch) -> list[str]:
        folder, settings = shlex.quote(str(launch.folder)), shlex.quote(str(launch.properties))
        formatting = f"/opt/kafka/bin/kafka-storage.sh format --standalone -t {CLUSTER_ID} -c {settings}"
        serving = f"exec /opt/kafka/bin/kafka-server-start.sh {settings}"
        script = f"[ -s {folder}/data/meta.properties ] || {formatting} {launch.format_args} || exit 1; {serving}"
        # Our own user, so that the folder can be removed; the host's network, so that any listener can be reached.
        options = [
            "--network",
            "host",
            "--user",
            f"{os.getuid()}:{os.getgid()}",
            "-v",
            f"{launch.folder}:{launch.folder}",
        ]
        options += ["-e", f"KAFKA_HEAP_OPTS=-Xmx{launch.heap} -Xms128m", "-e", f"LOG_DIR={launch.folder}/log"]
        return ["docker", "run", "-d", "--name", name, *options, "--entrypoint", "sh", IMAGE, "-c", script]
