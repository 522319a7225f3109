"""Hosts of a network on this machine: each in namespaces of its own (network, processes, mounts, name), joined by a
bridge. Linux, and root.

A host's end is a power failure: the kernel kills every process in it at once. Nothing of a network is left behind, and
the machine's own network is not touched: the bridge lies in a namespace too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TOOLS = ("ip", "nsenter", "setpriv", "unshare")
# The first process of a host, which reaps what others leave. Temporary files of Ray's are not shared.
FIRST = 'mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && hostname "$0" && { sleep infinity & wait; }'
NAMESPACES = ("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
GROUPS = Path("/sys/fs/cgroup/blkio")  # of control groups whose disk can be slow
SECONDS = 120.0  # for what a host does at once on a quiet machine
RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
STORE_BYTES = 80 << 20  # the least that Ray takes
PORT = 6379


def why_no_hosts() -> str | None:
    """Why this machine can have no hosts, in one line."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"hosts in namespaces need {', '.join(missing)}"
    if os.geteuid() != 0:
        return "hosts in namespaces need root"
    tried = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"namespaces are not permitted: {tried.stderr.strip()}"


class Host:
    """A machine with a name and an address of its own. `slow_at`: how many writes a second its disk does. `own`: a
    folder in whose place it has a file system of its own, which is empty whenever it begins.
    """

    def __init__(
        self, name: str, address: str | None = None, slow_at: int | None = None, own: Path | None = None
    ) -> None:
        self.name, self.address, self.slow_at, self.own = name, address, slow_at, own
        self.group = GROUPS / f"trimtab-{os.getpid()}-{name}"
        self.holder: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The first process."""
        assert self.holder is not None
        return int(Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()[0])

    def begin(self) -> None:
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "sh", "-c", FIRST, self.name]
        self.holder = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        end = time.monotonic() + SECONDS
        while not self._is_up():
            assert time.monotonic() < end, f"{self.name} does not begin"
            time.sleep(0.02)
        if self.slow_at is not None:
            device = os.stat(Path.cwd()).st_dev
            self.group.mkdir(exist_ok=True)
            slow = f"{os.major(device)}:{os.minor(device)} {self.slow_at}"
            (self.group / "blkio.throttle.write_iops_device").write_text(slow)
            self._join_group(self.pid)
        if self.own is not None:
            self.run("mount", "-t", "tmpfs", "tmpfs", str(self.own))

    def _is_up(self) -> bool:
        with suppress(IndexError, OSError):
            own = ["nsenter", "-t", str(self.pid), "-u", "hostname"]
            return subprocess.run(own, capture_output=True, text=True).stdout.strip() == self.name
        return False

    def _join_group(self, pid: int) -> None:
        (self.group / "cgroup.procs").write_text(str(pid))

    def command(self, *command: str) -> list[str]:
        """A command that runs on this host."""
        inside = ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-p", "--", *command]
        if self.slow_at is None:
            return inside
        return ["sh", "-c", f'echo $$ > {self.group}/cgroup.procs && exec "$@"', "sh", *inside]

    def run(self, *command: str) -> str:
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def link(self, state: str) -> None:
        """Cut its network, or mend it: `down` or `up`."""
        self.run("ip", "link", "set", "dev", "eth0", state)

    def kill(self) -> None:
        """Cut its power."""
        assert self.holder is not None
        self.holder.kill()
        self.holder.wait()
        end = time.monotonic() + SECONDS
        while self.group.is_dir():  # its processes end a moment later
            with suppress(OSError):
                self.group.rmdir()
            assert time.monotonic() < end, f"processes of {self.name} are left"
            time.sleep(0.02)


class Network:
    """Hosts joined by a bridge."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self._switch = Host("switch")

    def open(self) -> None:
        self._switch.begin()
        self._on_switch("link", "add", "name", "bridge0", "type", "bridge")
        self._on_switch("link", "set", "dev", "bridge0", "up")
        for host in self.hosts.values():
            self.begin(host)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def _on_switch(self, *words: str) -> None:
        # not among its processes: those of other hosts have their numbers here
        command = ["nsenter", "-t", str(self._switch.pid), "-n", "ip", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 or words[:2] == ("link", "delete"), f"{words}: {done.stderr}"

    def begin(self, host: Host) -> None:
        """Start a host, and attach it to the bridge."""
        host.begin()
        port = f"to-{host.name}"
        peer = ("type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._on_switch("link", "delete", "dev", port)  # of a host that ended, unless the kernel was faster
        self._on_switch("link", "add", "name", port, *peer)
        self._on_switch("link", "set", "dev", port, "master", "bridge0", "up")
        host.run("ip", "link", "set", "dev", "lo", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.link("up")

    def close(self) -> None:
        for host in (*self.hosts.values(), self._switch):
            if host.holder is not None and host.holder.poll() is None:
                host.kill()


@contextmanager
def network(*hosts: Host) -> Iterator[Network]:
    """Hosts that end with the test, however it ends."""
    made = Network(hosts)
    try:
        made.open()
        yield made
    finally:
        made.close()


def start_ray(host: Host, head: Host, cores: int = 1) -> None:
    """Start Ray on a host, as `ray start` does; on the head without an address to join."""
    where = ["--head", f"--port={PORT}", "--include-dashboard=false"]
    if host is not head:
        where = [f"--address={head.address}:{PORT}"]
    sizes = [f"--num-cpus={cores}", f"--object-store-memory={STORE_BYTES}"]
    host.run(*RAY, "start", *where, f"--node-ip-address={host.address}", *sizes, "--disable-usage-stats")
