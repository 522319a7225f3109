"""The processes of one training: they find each other, agree on what they begin with, and exchange results.

A process belongs to a group if `torchrun`, or another launcher, sets WORLD_SIZE above 1 and RANK, MASTER_ADDR and
MASTER_PORT. `joined` makes it a member for as long as the context is open; everywhere else `size()` is 1 and nothing
here does anything. Collectives run over gloo on a CPU, and over NCCL between GPUs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar

from packaging.version import Version

from trimtab.base.errors import InputError, StoppedError
from trimtab.base.progress import STOP_SIGNALS
from trimtab.base.sanitize import one_line

if TYPE_CHECKING:  # whoever asks for the rank alone needs no torch
    import torch
    from torch import Tensor

LEAST_TORCH = "2.8"  # fully_shard with parameters that it leaves alone
JOIN_SECONDS = 120.0  # for all processes to arrive
COLLECTIVE_SECONDS = 1800.0  # a silent process counts as gone; a killed one is noticed at once
BEAT_SECONDS, GRACE_SECONDS = 0.5, 5.0  # how often a process shows that it lives, and when one that does not is gone
LINGER_SECONDS = 30.0  # that the process with the store stays for the others to read in it
# What torch says of a lost connection in a RuntimeError of no class of its own.
_LOST = ("connection closed", "connection reset", "timed out", "gloo", "nccl", "broken pipe", "socket")

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The launcher's settings for this process: its rank, the number of processes, and the address of rank 0.

    `local_rank`: its rank on its machine; `local_size`: the number of processes there, by default all.
    """

    rank: int
    size: int
    local_rank: int
    address: str
    port: int
    local_size: int = 1


@dataclass(frozen=True, kw_only=True)
class _Member:
    launch: Launch
    store: Any  # torch.distributed.Store
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def holds_store(self) -> bool:
        return _holds_store(self.launch)


_member: _Member | None = None


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """Return this process's place in its group by the launcher's variables, None for a process of its own.

    Raises InputError for variables that are missing or contradict each other.
    """
    size = _number(environment, "WORLD_SIZE", 1)
    if size <= 1:
        return None
    start = f"start all of them with: torchrun --nproc-per-node {size} -m trimtab train ARM"
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if missing:
        problem = f"WORLD_SIZE={size} says that this is one of {size} processes, and {', '.join(missing)} is not set"
        raise InputError(problem, start)
    rank = _number(environment, "RANK", 0)
    if rank >= size:
        raise InputError(f"RANK={rank} is not below WORLD_SIZE={size}", start)
    return Launch(
        rank=rank,
        size=size,
        local_rank=_number(environment, "LOCAL_RANK", 0),
        address=environment["MASTER_ADDR"],
        port=_number(environment, "MASTER_PORT", 0),
        local_size=max(1, _number(environment, "LOCAL_WORLD_SIZE", size)),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit():
        raise InputError(f"{name}={text!r} is no number", "leave it to torchrun, or set it to one")
    return int(text)


def rank() -> int:
    """Return the number of this process in its group, 0 outside of one."""
    return 0 if _member is None else _member.launch.rank


def size() -> int:
    """Return the number of processes of the group, 1 outside of one."""
    return 1 if _member is None else _member.launch.size


def local_size() -> int:
    """Return the number of the group's processes on this machine, 1 outside of a group."""
    return 1 if _member is None else _member.launch.local_size


def is_main_process() -> bool:
    """True for rank 0, which alone writes records, and for a process outside of a group."""
    return rank() == 0


def device() -> torch.device:
    """Return the device of this process's shards and passes."""
    import torch

    local = 0 if _member is None else _member.launch.local_rank
    return torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def joined(launch: Launch | None, begun_with: Mapping[str, str]) -> Iterator[None]:
    """Context manager: this process is a member of its group; without a launch it stays alone.

    `begun_with`: names and values that all processes must have in common, such as versions. Raises InputError if
    another process begins with something else, does not arrive within JOIN_SECONDS, or has no GPU where one is
    needed; StoppedError, with the rank, if another process fails or is lost while the context is open.
    """
    global _member
    if launch is None:
        yield
        return
    _require_torch()
    _require_device(launch)
    _member = _Member(launch=launch, store=_store(launch))
    try:
        _meet(_member)
        threading.Thread(target=_beat, args=(_member,), daemon=True, name="beat").start()
        _begin(launch, _member.store)
        require_same({**begun_with, "device": device().type})
        yield
        _leave()
    except BaseException as error:
        _explain_end(_member, error)
        raise
    finally:
        _member.ended.set()
        _member = None


def _require_torch() -> None:
    import torch

    if Version(torch.__version__) < Version(LEAST_TORCH):
        problem = f"a training over several processes needs torch {LEAST_TORCH}, and this is {torch.__version__}"
        raise InputError(problem, f"install it with: pip install 'torch>={LEAST_TORCH}'")


def _require_device(launch: Launch) -> None:
    """Select this process's GPU; raises InputError if it is asked for and not there."""
    import torch

    if not torch.cuda.is_available():
        if os.environ.get("CUDA_VISIBLE_DEVICES", "").strip(" -1"):
            problem = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} asks for GPUs, and torch finds none"
            raise InputError(problem, "install torch for CUDA and its driver, or unset it to train on the CPU")
        return
    count = torch.cuda.device_count()
    if launch.local_rank >= count:
        problem = f"LOCAL_RANK={launch.local_rank}, and this machine has {count} GPU{'s' * (count > 1)}"
        raise InputError(problem, f"start it with --nproc-per-node {count}")
    torch.cuda.set_device(launch.local_rank)


def _store(launch: Launch) -> Any:
    """Return the key-value store of the group, which rank 0 or torchrun holds; raises InputError if it is not
    reached within JOIN_SECONDS.
    """
    distributed: Any = import_module("torch.distributed")  # its types name no stores
    holds = _holds_store(launch)
    place = f"{launch.address}:{launch.port}"
    own = _loopback_socket(launch) if holds else None
    try:
        store = distributed.TCPStore(
            *(launch.address, launch.port, None, holds, timedelta(seconds=JOIN_SECONDS)),
            wait_for_workers=False,
            master_listen_fd=own,
        )
    except RuntimeError as error:
        if holds:
            problem = f"rank 0 cannot listen at MASTER_ADDR {place} ({one_line(error)})"
            raise InputError(problem, "set MASTER_ADDR to this machine, and MASTER_PORT to a free port") from error
        problem = f"rank {launch.rank} of {launch.size} found no rank 0 at MASTER_ADDR {place} in {JOIN_SECONDS:g} s"
        raise InputError(problem, "start rank 0 there, or correct MASTER_ADDR and MASTER_PORT") from error
    return distributed.PrefixStore(f"trimtab-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def _loopback_socket(launch: Launch) -> int | None:
    """Return the descriptor of a socket for the store that is bound to a loopback address; None for other addresses.

    Left to itself the store listens on every address of the machine, and takes orders from whoever reaches it.
    """
    if not _is_loopback(launch.address):
        return None
    with suppress(OSError):  # the store tells why it cannot listen there
        family = socket.AF_INET6 if ":" in launch.address else socket.AF_INET
        return socket.create_server((launch.address, launch.port), family=family).detach()
    return None


def _is_loopback(address: str) -> bool:
    with suppress(ValueError):  # a name: what it stands for may differ between machines
        return ip_address(address).is_loopback
    return False


def _holds_store(launch: Launch) -> bool:
    """True if the store lives as long as this process; that of torchrun outlives all."""
    return launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def _meet(member: _Member) -> None:
    """Wait for all processes; raises InputError with the missing ones after JOIN_SECONDS."""
    launch, store = member.launch, member.store
    store.set(f"here/{launch.rank}", "1")
    deadline = time.monotonic() + JOIN_SECONDS
    while missing := [one for one in range(launch.size) if not store.check([f"here/{one}"])]:
        if time.monotonic() > deadline:
            problem = f"{_ranks(missing)} of {launch.size} did not arrive in {JOIN_SECONDS:g} s"
            remedy = f"start all {launch.size} processes, each where MASTER_ADDR {launch.address} answers"
            raise InputError(problem, remedy)
        time.sleep(0.05)


def _beat(member: _Member) -> None:
    """Show in the store, in a thread, that this process lives, also while it waits for others."""
    with suppress(RuntimeError):  # the store is gone, and with it all that could read
        while not member.ended.wait(BEAT_SECONDS):
            member.store.add(f"beat/{member.launch.rank}", 1)


def _ranks(numbers: Sequence[int]) -> str:
    return f"rank{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def _begin(launch: Launch, store: Any) -> None:
    import torch

    if _is_loopback(launch.address):  # then all processes are on this machine, and listen there alone
        interface = "lo0" if sys.platform == "darwin" else "lo"
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", interface)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=store,
        rank=launch.rank,
        world_size=launch.size,
        timeout=timedelta(seconds=COLLECTIVE_SECONDS),
    )


def _leave() -> None:
    import torch

    torch.distributed.destroy_process_group()


def require_same(values: Mapping[str, str]) -> None:
    """Raise InputError, on all processes, if one of them has another value than rank 0."""
    everyone = all_gather(dict(values))
    for number, other in enumerate(everyone):
        for name in dict.fromkeys((*everyone[0], *other)):
            if other.get(name) != everyone[0].get(name):
                both = f"{_shown(everyone[0].get(name))} on rank 0 and {_shown(other.get(name))} on rank {number}"
                raise InputError(f"{name} differs: {both}", "give all processes the same, and start them again")


def _shown(value: str | None) -> str:
    return "missing" if value is None else value if len(value) <= 60 else f"{value[:24]}…"


def all_gather(value: Value) -> list[Value]:
    """Return every process's `value`, by rank: plain data, that is numbers, texts, tensors, and tuples, lists and
    dictionaries of them.

    Tensors arrive on the CPU. Nothing but plain data is read from another process.
    """
    import torch

    if _member is None:
        return [value]
    own_B = torch.frombuffer(bytearray(_packed(value)), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.long) for _ in range(size())]
    torch.distributed.all_gather(lengths, torch.tensor([len(own_B)]))
    longest = max(map(int, lengths))
    padded_B = torch.zeros(longest, dtype=torch.uint8)
    padded_B[: len(own_B)] = own_B
    found = [torch.empty_like(padded_B) for _ in lengths]
    torch.distributed.all_gather(found, padded_B)
    texts = (one[: int(length)].numpy().tobytes() for one, length in zip(found, lengths, strict=True))
    return list(map(_unpacked, texts))


def _packed(value: object) -> bytes:
    """Return plain data as bytes: safetensors, of which one has the JSON of all but the tensors."""
    import torch
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}

    def plain(one: object) -> object:
        if isinstance(one, torch.Tensor):
            tensors[str(len(tensors))] = one.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(one, dict):
            return {"dict": [[plain(key), plain(held)] for key, held in one.items()]}
        if isinstance(one, list | tuple):
            return {type(one).__name__: list(map(plain, one))}
        return one

    text = json.dumps(plain(value)).encode()
    content: bytes = save({**tensors, "": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return content


def _unpacked(content: bytes) -> Any:
    """Return what `_packed` made bytes of, with its tensors on the CPU."""
    from safetensors.torch import load

    tensors = load(content)

    def built(one: Any) -> Any:
        if not isinstance(one, dict):
            return one
        ((kind, held),) = one.items()
        if kind == "tensor":
            return tensors[held]
        if kind == "dict":
            return {built(key): built(value) for key, value in held}
        return (tuple if kind == "tuple" else list)(map(built, held))

    return built(json.loads(tensors[""].numpy().tobytes()))


def broadcast(value: Callable[[], Value]) -> Value:
    """Return what rank 0 computes, plain data, on every process."""
    return all_gather(value() if is_main_process() else None)[0]  # type: ignore[return-value]


def main_process_first(action: Callable[[], Value]) -> Value:
    """Run an action on rank 0, whose files the others then find, and afterwards on the others; return its result."""
    if is_main_process():
        found = action()
        all_gather(None)
        return found
    all_gather(None)
    return action()


def any_process(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether it is set on any process."""
    import torch

    if _member is None:
        return flags
    found = torch.tensor(flags, dtype=torch.int32)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return tuple(map(bool, found.tolist()))


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes, the same bits on each; the input may be overwritten."""
    import torch

    if _member is not None:
        torch.distributed.all_reduce(values)
    return values


def _explain_end(member: _Member, error: BaseException) -> None:
    """Tell the other processes why this one ends. Raises StoppedError if it ends because another one did."""
    lost, launch, store = _is_lost_connection(error), member.launch, member.store
    why = ""
    with _signals_ignored():
        try:
            store.set(f"end/{launch.rank}", "" if lost else one_line(error))
            why = _why_lost(member, error) if lost else ""
            if member.holds_store:
                _linger(member, LINGER_SECONDS if lost else GRACE_SECONDS)
        except RuntimeError:
            why = why or _gone([0], launch)  # it held the store
    if lost:
        raise StoppedError(why) from error


def _why_lost(member: _Member, error: BaseException) -> str:
    """Return why a connection broke: another process said why it ends, or shows no more that it lives.

    The first to find out tells the others.
    """
    launch, store = member.launch, member.store
    beats = _beats(member)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline:
        if store.check(["why"]):
            return str(store.get("why").decode())
        ended = {one: store.get(f"end/{one}").decode() for one in _ended(member)}
        failed = next((one for one, text in ended.items() if text), None)
        if failed is not None:
            return f"rank {failed} of {launch.size} failed: {ended[failed]}"
        time.sleep(0.05)
    ended_since, beats_since = _ended(member), _beats(member)
    silent = [one for one in range(launch.size) if one not in ended_since and beats_since[one] == beats[one]]
    why = _gone(silent, launch) if silent else f"the connection between the processes broke ({one_line(error)})"
    store.set("why", why)
    return why


def _beats(member: _Member) -> list[int]:
    return [member.store.add(f"beat/{one}", 0) for one in range(member.launch.size)]


def _ended(member: _Member) -> list[int]:
    return [one for one in range(member.launch.size) if member.store.check([f"end/{one}"])]


def _gone(ranks: Sequence[int], launch: Launch) -> str:
    verb = "are" if len(ranks) > 1 else "is"
    return f"{_ranks(ranks)} of {launch.size} {verb} gone (killed, stuck, or not reached); what was saved is kept"


def _linger(member: _Member, seconds: float) -> None:
    """Wait until all others that live have ended, as they read in this process's store."""
    deadline, beats = time.monotonic() + seconds, _beats(member)
    while time.monotonic() < deadline:
        time.sleep(0.1)
        ended, beats_now = _ended(member), _beats(member)
        silent_long = time.monotonic() > deadline - seconds + GRACE_SECONDS
        if all(one in ended or (silent_long and beats_now[one] == beats[one]) for one in range(member.launch.size)):
            return


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """Context manager: no signal stops this process, as the launcher stops all as soon as one has failed."""
    former: dict[signal.Signals, Any] = {}
    with suppress(ValueError):  # not the main thread, which alone may handle signals
        for number in STOP_SIGNALS:
            former[number] = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _is_lost_connection(error: BaseException) -> bool:
    """True for an error of a collective whose other side is gone."""
    import torch

    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _LOST)
