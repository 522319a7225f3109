"""Keys on disk, and what a server refuses to start with."""

from __future__ import annotations

import json
import ssl
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from serving_tasks import serving_here
from study_tasks import write_task
from typer.testing import CliRunner

from trimtab.base.errors import InputError
from trimtab.cli.main import app
from trimtab.serving.access import add_key, is_loopback, key_digest, read_keys
from trimtab.serving.options import ServerOptions
from trimtab.serving.serve import serve


def test_the_file_never_holds_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first, second = add_key(file, "team-a"), add_key(file, "team-b")
    text = file.read_text()
    assert first not in text
    assert second not in text
    assert key_digest(first) in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = read_keys(file)
    assert [key and key.name for key in map(keys.find, (first, second, first[:-1], ""))] == [
        "team-a",
        "team-b",
        None,
        None,
    ]
    with pytest.raises(InputError, match="a key is named 'team-a' already"):
        add_key(file, "team-a")
    file.write_text(text.replace(key_digest(first), key_digest(first).upper()))
    assert read_keys(file).find(first)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_of_keys_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "team-a")
    file.chmod(mode)
    with pytest.raises(InputError, match=r"keys\.json: can be written by others, .*; .*chmod 600$"):
        read_keys(file)
    file.chmod(0o644)
    read_keys(file)


def test_a_file_of_keys_in_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    file = folder / "keys.json"
    add_key(file, "team-a")
    folder.chmod(0o777)
    with pytest.raises(InputError, match="can be written by others"):
        read_keys(file)
    folder.chmod(0o1777)  # as /tmp: nobody replaces what is another's
    read_keys(file)


@pytest.mark.parametrize(
    "entry",
    [{}, 5, None, {"name": "a"}, {"name": "a", "sha256": "tt-plain"}, {"name": 5, "sha256": "0" * 64}, {"name": "a",
     "sha256": 5},
     {"name": "a", "sha256": "0" * 64, "per_minute": 0}, {"name": "a", "sha256": "0" * 64, "per_minute": True}],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path: Path, entry: object) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(InputError, match=r"keys\.json: an entry is no key"):
        read_keys(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.evil.example"])
def test_an_address_that_others_reach_wants_keys(tmp_path: Path, host: str) -> None:
    task = write_task(tmp_path, "nowhere", ["prompt"])
    with pytest.raises(InputError, match=r"--host: .* is reached by others, and no keys are given"):
        serve(["prompt"], task=task, server=ServerOptions(host=host))
    assert not is_loopback(host)
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.8.8")))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--keys", "none.json"], "none.json: does not exist; make it with: trimtab serve --new-key NAME --keys FILE"),
        (["--new-key", "a"], "--new-key: no file for the key; name one with --keys FILE"),
        (["--certificate", "a.pem"], "--certificate: one half of a certificate"),
        (["--host", "0.0.0.0"], "--host: 0.0.0.0 is reached by others"),
        (["--host", "no such host", "--keys", "keys.json"], "cannot listen on no such host:8000"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, "nowhere", ["prompt"])
    add_key(tmp_path / "keys.json", "a")
    result = CliRunner().invoke(app, ["serve", "prompt", *given])
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that signs itself, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    now, here = datetime.now(UTC), x509.IPAddress(ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "locked.pem").write_bytes(locked)
    return folder / "cert.pem", folder / "key.pem"


def test_it_serves_over_tls(tmp_path: Path, tiny_model_folder: Path) -> None:
    certificate, key = certified(tmp_path / "tls")
    task = write_task(tmp_path, tiny_model_folder, ["prompt"])
    with serving_here(task, "prompt", certificate=certificate, private_key=key) as here:
        assert here.url.startswith("https://")
        with here.client(verify=ssl.create_default_context(cafile=certificate)) as client:
            body = {"model": "prompt", "messages": [{"role": "user", "content": "Bonn?"}], "max_tokens": 1}
            assert client.post("/v1/chat/completions", json=body).status_code == 200
            assert "; Secure" in client.get("/", params={"token": here.key}).headers["Set-Cookie"]
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"), here.client() as stranger:
            stranger.get("/health/live")


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        ("none.pem", "tls/key.pem", "none.pem: --certificate cannot be read (No such file or directory); give a PEM"),
        ("tls/cert.pem", "none.pem", "none.pem: --private-key cannot be read (No such file or directory); give a PEM"),
        ("tls/key.pem", "tls/key.pem", "tls/key.pem: --certificate holds no certificate in PEM"),
        ("rows.jsonl", "tls/key.pem", "rows.jsonl: --certificate holds no certificate in PEM"),
        ("tls/cert.pem", "rows.jsonl", "rows.jsonl: --private-key holds no private key in PEM that opens without"),
        ("tls/cert.pem", "tls/locked.pem", "tls/locked.pem: --private-key holds no private key in PEM that opens"),
        ("tls/cert.pem", "other/key.pem", "other/key.pem: --private-key is not that of tls/cert.pem"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certificate: str, key: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path, "nowhere", ["prompt"])  # whose model would be looked for next
    certified(tmp_path / "tls")
    certified(tmp_path / "other")
    result = CliRunner().invoke(app, ["serve", "prompt", "--certificate", certificate, "--private-key", key])
    assert result.exit_code == 2
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_new_key_is_shown_once(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--new-key", "team", "--keys", str(tmp_path / "keys.json")])
    assert result.exit_code == 0
    assert read_keys(tmp_path / "keys.json").find(result.stdout.strip())
    result = CliRunner().invoke(app, ["serve", "--new-key", "b", "--keys", str(tmp_path / "keys.json"), "--json"])
    told = json.loads(result.stdout)
    assert told["name"] == "b"
    known = read_keys(tmp_path / "keys.json").find(told["key"])
    assert known is not None
    assert known.name == "b"
