"""A bundle is a whole arm: away from its task it is served and asked, and answers as it was measured."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from serving_tasks import Here, serving_here
from study_tasks import CLASSIFY, LABELLED, write_task

from trimtab import ask, export, study
from trimtab.base.errors import InputError
from trimtab.cli.main import run


def moved(task: Path, arm: str, place: Path) -> Path:
    """The bundle of an arm, in a place where nothing of its task is."""
    result = export(task, arm, format="bundle", out=place / "made", listeners=[])
    assert not result.failed
    assert [proof.what for proof in result.proofs][:1] == ["prompts"]
    return Path(shutil.move(place / "made", place / "elsewhere"))


@pytest.mark.parametrize("arm", ["prompt", "rag", "quick"])
def test_an_arm_that_writes(arm: str, writing: Here, written: Path, tmp_path: Path) -> None:
    bundle = moved(written, arm, tmp_path)
    with serving_here(tmp_path / "no-task.toml", bundle=bundle) as here:
        (model,) = here.parts.dispatcher.models.values()
        assert model.id == f"tiny:{arm}"
        assert model.check is not None
        assert model.check.equal >= 0.95 * model.check.questions
        assert model.result == next(
            one.result for one in writing.parts.dispatcher.models.values() if one.arm == arm
        )  # the page shows what the study measured
        body = {"model": model.id, "messages": [{"role": "user", "content": "Where is the bridge of Bonn?"}]}
        with here.client() as client:
            served = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    with writing.client() as client:
        usual = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    assert served == usual
    asked = ask("Where is the bridge of Bonn?", bundle=bundle, listeners=[])
    assert asked.answer == usual["content"]
    assert bool(asked.hits) is (arm == "rag")


@pytest.mark.parametrize("arm", ["prompt", "linear"])
def test_an_arm_that_decides(arm: str, deciding: Here, tmp_path: Path) -> None:
    bundle = moved(deciding.folder / "trimtab.toml", arm, tmp_path)
    with serving_here(tmp_path / "no-task.toml", bundle=bundle) as here:
        (model,) = here.parts.dispatcher.models.values()
        assert model.check is not None
        assert model.check.equal == model.check.questions
        body = {"model": model.id, "messages": [{"role": "user", "content": "The bridge of Bonn"}]}
        with here.client() as client:
            told = client.post("/v1/chat/completions", json=body).json()
    with deciding.client() as client:
        usual = client.post("/v1/chat/completions", json=body).json()
    assert told["choices"] == usual["choices"]


@pytest.mark.parametrize("a_month", [100_000, 0])
def test_a_question_costs_what_the_study_says_whatever_the_task_file_says_now(
    a_month: int, tmp_path: Path, tiny_model_folder: Path
) -> None:
    volume = f"[cost]\nquestions_per_month = {a_month}"
    task = write_task(tmp_path, tiny_model_folder, ["prompt"], task=CLASSIFY, data=LABELLED, more=volume)
    (measured,) = study(task, listeners=[]).arms
    assert measured.cost is not None
    bundle = moved(task, "prompt", tmp_path)
    task.write_text(task.read_text().replace(volume, "[cost]\nquestions_per_month = 7"))

    def told(**options: Any) -> Any:
        with serving_here(task, **options) as here, here.client() as client:
            reply = client.get("/v1/models")
            assert reply.status_code == 200
            return reply.json()["data"][0]["trimtab"]["measured"].get("cost")

    for cost in (told(), told(bundle=bundle)):
        assert (cost is None) is (a_month == 0)
        if cost:
            assert cost["per_question"] == pytest.approx(measured.cost.total / (a_month * 12))


def test_what_does_not_fit_is_refused(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = moved(written, "prompt", tmp_path)
    with (
        pytest.raises(InputError, match="8 bits cost is measured where the study is"),
        serving_here(written, bundle=bundle, eight_bit=True),
    ):
        raise AssertionError
    for command in (["serve", "rag"], ["ask", "Bonn?", "--arm", "rag"]):
        with pytest.raises(SystemExit, match="2"):
            run([*command, "--bundle", str(bundle)])
        assert "a bundle is one arm; leave out" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(["ask", "Bonn?", "--bundle", str(tmp_path)])
    assert f"{tmp_path}: no bundle; make one with" in capsys.readouterr().err
    file = bundle / "questions.json"
    plain = json.loads(file.read_text())
    plain["questions"] = [{**one, "answer": "another"} for one in plain["questions"]]
    file.write_text(json.dumps(plain))
    with (
        pytest.raises(InputError, match="prompt: 0 of 15 stored answers equal, 15 different"),
        serving_here(written, bundle=bundle),
    ):
        raise AssertionError


def test_a_signed_bundle_is_opened_as_it_was_signed_and_in_no_other_way(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (private, public), (_, other) = keys(tmp_path / "mine"), keys(tmp_path / "other")
    bundle = tmp_path / "out"
    assert not export(written, "rag", format="bundle", out=bundle, sign=private, listeners=[]).failed
    assert "Every file is signed" in (bundle / "README.md").read_text()
    check = [sys.executable, "-m", "model_signing", "verify", "key", ".", "--signature", "model.sig", "--public_key"]
    usual = ask("Bonn?", bundle=bundle, listeners=[]).answer
    assert ask("Bonn?", bundle=bundle, signed_by=public, listeners=[]).answer == usual
    with serving_here(written, bundle=bundle, signed_by=public) as here:
        assert here.parts.limiter.is_ready
    assert (bundle / ".trimtab").is_dir()  # the server's judgements, which nobody signed
    more = ["--no-ignore-git-paths", "--ignore-paths", ".trimtab"]
    for key, code in ((public, 0), (other, 1)):  # as the card says, without us
        done = subprocess.run([*check, str(key), *more], cwd=bundle, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert ask("Bonn?", bundle=bundle, signed_by=public, listeners=[]).answer == usual

    def refused(key: Path, what: str) -> None:
        with pytest.raises(SystemExit, match="2"):
            run(["ask", "Bonn?", "--bundle", str(bundle), "--signed-by", str(key)])
        (line,) = capsys.readouterr().err.splitlines()
        assert what in line

    refused(other, f"{bundle}: is not as {other} signed it: Key mismatch")
    refused(private, "is no public key")
    refused(tmp_path / "none.pem", "is no public key")
    for change in (
        bundle / "bundle.json",
        bundle / "documents.json",
        bundle / "run" / "more.json",
        bundle / ".git" / "x",
    ):
        before = change.read_bytes() if change.is_file() else None
        change.parent.mkdir(exist_ok=True)
        change.write_bytes((before or b"{}") + b" ")
        refused(public, f"{bundle}: is not as {public} signed it: Signature mismatch")
        if before is None:
            change.unlink()
        else:
            change.write_bytes(before)
    for odd in (bundle / ".trimtab" / "splits.parquet", bundle / ".trimtab" / "model" / "config.json"):
        odd.parent.mkdir(exist_ok=True)
        odd.write_text("{}")
        refused(public, "is not signed, but its folder is; take it away")
        odd.unlink()
    (bundle / ".trimtab" / "model").rmdir()
    for place in (bundle / "run" / "model.sig", bundle / "run" / ".trimtab" / "x"):
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(bundle / "model.sig", place)
        refused(public, "Extra files found")
        place.unlink()
    kept = (bundle / "model.sig").read_text()
    envelope = json.loads(kept)["dsseEnvelope"]
    forged = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b"sha256", b"sha265")).decode()
    for damaged in (
        *("", "{}", "[1]", kept[: len(kept) // 2], kept.replace("payload", "other")),
        *("[" * 100_000, '{"a":' * 100_000, kept.replace(envelope["payload"], forged)),
        json.dumps({**json.loads(kept), "dsseEnvelope": {**envelope, "signatures": []}}),
    ):
        (bundle / "model.sig").write_text(damaged)
        refused(public, "signed it")
    (bundle / "model.sig").unlink()
    refused(public, "is not signed: it holds no model.sig")
    with pytest.raises(InputError, match="cannot sign"):
        export(written, "rag", format="bundle", out=tmp_path / "again", sign=public, listeners=[])
    assert not (tmp_path / "again").exists()
    with pytest.raises(SystemExit, match="2"):
        run(["ask", "Bonn?", "--signed-by", str(public)])
    assert "a key, and no bundle that it signed" in capsys.readouterr().err


def test_a_signed_bundle_is_not_opened_on_another_base(
    written: Path, tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its signature covers the hashes of the base, so that who can exchange the base cannot exchange what is asked
    of it."""
    private, public = keys(tmp_path / "mine")
    task = shutil.copytree(written.parent, tmp_path / "task") / "trimtab.toml"
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    task.write_text(task.read_text().replace(str(tiny_model_folder), str(base)))
    bundle = tmp_path / "out"
    export(task, "prompt", format="bundle", out=bundle, sign=private, listeners=[])
    assert ask("Bonn?", bundle=bundle, signed_by=public, listeners=[]).answer
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "model"))
    for command in (["ask", "Bonn?"], ["serve", "--port", "0"]):
        with pytest.raises(SystemExit, match="2"):
            run([*command, "--bundle", str(bundle), "--signed-by", str(public)])
        (line,) = capsys.readouterr().err.splitlines()
        assert "bundle.json: was made with another chat_template.jinja of the base model than this machine has" in line


def keys(folder: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    folder.mkdir()
    made = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    (folder / "public.pem").write_bytes(
        made.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return folder / "key.pem", folder / "public.pem"
