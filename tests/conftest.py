"""No test reaches the network: what is not loopback is refused, and the hub's libraries are told that they are offline.

Also the tiny random models, as folders, that stand in for real ones.
"""

import gc
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path[:0] = [str(Path(__file__).parent / "helpers")]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and tests send it
os.environ["XDG_CONFIG_HOME"] = os.devnull  # nobody's own configuration decides a test
# How long an example takes is the machine's business. `make test-stress` draws many (--hypothesis-profile).
settings.register_profile("few", deadline=None, max_examples=20)
settings.register_profile("many", deadline=None, max_examples=500)
settings.load_profile("few")
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TRIMTAB_DEVICE_CHECK"] = "0"  # many tests have a cache of their own, and each would check the machine again


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", metavar="FILE", help="write processor and wall time of every test to FILE, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.times:
        from times_of_tests import TimesOfTests

        config.pluginmanager.register(TimesOfTests(config.option.times))


_connect, _connect_ex = socket.socket.connect, socket.socket.connect_ex


def _is_here(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        return address[0] == "localhost" or ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return False


def _refuse(self: socket.socket, address: Any) -> None:
    if not _is_here(self.family, address):
        raise PermissionError(f"a test tried to reach {address[0]}")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    _refuse(self, address)
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    _refuse(self, address)
    return _connect_ex(self, address)


socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def _garbage_of_the_tests_alone() -> Iterator[None]:
    """One search through all objects for the whole session: a million in the end, and every verb would look through
    them again."""
    from trimtab.base.machine import gc_frozen

    with gc_frozen():
        yield


@pytest.fixture(autouse=True, scope="module")
def _garbage_of_one_module() -> None:
    """What stands when a module begins is passed over from then on."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def default_hangup() -> Iterator[None]:
    """SIGHUP has its usual effect, here and in child processes, even if the tests run under nohup, which ignores it.

    Only for one test: otherwise a closed terminal would end tests that were started under nohup to outlive it.
    """
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.fixture
def all_searched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process of its own: a search for garbage passes over nothing."""
    monkeypatch.setattr("trimtab.base.machine._gc_is_frozen", False)
    gc.unfreeze()
    yield
    gc.freeze()


# Rooms whose tests train and answer with models, real and tiny ones; elsewhere a test that asks for a tiny model is
# slow.
SLOW_ROOMS = {"arms", "e2e", "inference", "model", "serving", "studies", "training"}
TINY_MODELS = {"tiny_model_folder", "tiny_embedding_folder"}
PACKAGE = Path(__file__).parents[1] / "trimtab"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What `make test-fast` runs nothing of need not be imported."""
    in_tests = collection_path.parent == Path(__file__).parent
    return (in_tests and collection_path.name in SLOW_ROOMS and "not slow" in config.option.markexpr) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a model; skip what needs a room that is taken away."""
    for item in items:
        asked = [room for marker in item.iter_markers("rooms") for room in marker.args]
        if missing := [room for room in asked if not (PACKAGE / room).is_dir()]:
            item.add_marker(pytest.mark.skip(reason=f"without {', '.join(missing)}"))
        if item.path.parent.name in SLOW_ROOMS or TINY_MODELS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True, scope="module")
def _kernels_where_they_take_part(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where `make test-processors` leaves a module out, no test of it asks for a kernel."""
    with pytest.MonkeyPatch.context() as patch:
        if any(map(request.node.get_closest_marker, ("no_kernels", "any_processor"))):
            fail = partial(
                pytest.fail, "a kernel was asked for, though this module is marked as one that asks for none"
            )
            patch.setattr("trimtab.model.kernels.build.library", fail)
        yield


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 1 MB of its own, where this user may mount one; `filling.fill` fills it."""
    place = Path(
        tempfile.mkdtemp(prefix="trimtab-disk-")
    )  # not in pytest's folder, which a test that was killed would block
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        place.rmdir()
        pytest.skip("this user may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


TINY_CONTEXT = 256  # tokens; one is about a character


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with a byte-level tokenizer and a ChatML template, as a model folder."""
    import torch
    from tiny_tokenizer import tiny_tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    fast = tiny_tokenizer()
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TINY_CONTEXT,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_embedding_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer that reads letters and words, as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-embedding")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,?'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    plain = folder / "plain"
    plain.mkdir()
    (plain / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab_file=str(plain / "vocab.txt")).save_pretrained(plain)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(plain)
    body = Transformer(str(plain), max_seq_length=128)
    whole = SentenceTransformer(modules=[body, Pooling(body.get_embedding_dimension())], device="cpu")
    whole.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many torch's products are shared among, for a test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
