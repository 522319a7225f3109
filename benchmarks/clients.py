"""Public clients of OpenAI's API, unchanged, against our server: text, streams, functions, several functions, forms.

Run: python benchmarks/clients.py --task FILE [--only NAME …]  →  benchmarks/results/clients.json, some ten minutes.
`trimtab serve prompt` runs in a process of its own on loopback. Each client is installed by pip or npm into a folder of
its own below the temporary folder and runs `benchmarks/clients/NAME.py` (or `.mjs`, `.sh`), which has nothing
of Trimtab but the address, the key and the name of the model. A check is passed if the client returns what its own
documentation says: text, a call of one of the functions with valid arguments, an object of the class, a stream that
adds up. The model is small and calls functions badly; what is looked at is the protocol, not the answers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.base.files import write_json
from trimtab.base.machine import describe_machine

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "clients.json"
FOLDERS = Path(tempfile.gettempdir()) / "trimtab-clients"
SECONDS = 600  # of one client


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client: its script, what is installed for it, and the distributions whose versions are told."""

    script: str
    packages: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


CLIENTS: Mapping[str, Client] = {
    "openai": Client(script="openai_python.py", packages=("openai",), told=("openai",)),
    "LangChain": Client(
        script="langchain_openai_.py",
        packages=("langchain", "langchain-openai"),
        told=("langchain", "langchain-openai"),
    ),
    "pydantic-ai": Client(script="pydantic_ai_.py", packages=("pydantic-ai-slim[openai]",), told=("pydantic-ai-slim",)),
    "LlamaIndex": Client(
        script="llama_index_.py",
        packages=("llama-index-core", "llama-index-llms-openai-like"),
        told=("llama-index-core", "llama-index-llms-openai-like"),
    ),
    "instructor": Client(script="instructor_.py", packages=("instructor",), told=("instructor",)),
    "litellm": Client(script="litellm_.py", packages=("litellm",), told=("litellm",)),
    "Haystack": Client(script="haystack_.py", packages=("haystack-ai",), told=("haystack-ai",)),
    "AutoGen": Client(
        script="autogen_.py", packages=("autogen-agentchat", "autogen-ext[openai]"), told=("autogen-agentchat",)
    ),
    "smolagents": Client(script="smolagents_.py", packages=("smolagents[openai]",), told=("smolagents",)),
    "OpenAI Agents SDK": Client(script="openai_agents.py", packages=("openai-agents",), told=("openai-agents",)),
    "llm": Client(script="llm_.py", packages=("llm",), told=("llm",)),
    "openai-node": Client(script="openai_node.mjs", packages=("openai", "zod"), told=("openai",)),
    "Vercel AI SDK": Client(
        script="vercel_ai.mjs",
        packages=("ai", "@ai-sdk/openai-compatible", "@ai-sdk/openai", "zod"),
        told=("ai", "@ai-sdk/openai-compatible"),
    ),
    "curl": Client(script="curl.sh"),
}


@contextmanager
def serving(task: Path) -> Iterator[tuple[str, str]]:
    """`trimtab serve prompt` until the block ends: its address and key."""
    command = [sys.executable, "-m", "trimtab", "serve", "prompt", "--task", str(task), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if process.stderr is None:
        raise RuntimeError("no standard error")
    for line in process.stderr:
        if match := re.search(r"API: +(\S+) +key: (\S+)", line):
            break
    else:
        raise SystemExit("the server did not start")
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield match[1], match[2]
    finally:
        process.terminate()
        process.wait()


def installed(name: str, client: Client) -> tuple[list[str], dict[str, str]]:
    """Install a client where it is not; the command that runs its script, and its versions."""
    script, folder = HERE / "clients" / client.script, FOLDERS / re.sub(r"\W+", "-", name)
    if script.suffix == ".sh":
        version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
        return ["bash", str(script)], {"curl": version}
    if script.suffix == ".mjs":
        if not folder.exists():
            folder.mkdir(parents=True)
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", *client.packages], cwd=folder, check=True)
        (folder / script.name).write_text(script.read_text())  # modules are looked for beside the script
        files = {one: folder / "node_modules" / one / "package.json" for one in client.told}
        return ["node", str(folder / script.name)], {
            one: json.loads(at.read_text())["version"] for one, at in files.items()
        }
    python = folder / "bin" / "python"
    if not folder.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *client.packages], check=True)
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {client.told!r}}}))"
    versions = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout
    return [str(python), str(script)], json.loads(versions)


def checked(name: str, client: Client, url: str, key: str, model: str) -> dict[str, Any]:
    """Run a client's script; its lines of JSON are the checks."""
    command, versions = installed(name, client)
    environment = {**os.environ, "BASE_URL": url, "API_KEY": key, "MODEL": model, "PYTHONPATH": str(HERE / "clients")}
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    environment |= {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LLM_USER_PATH": str(FOLDERS / "llm-settings")}
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
    checks = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"check"')]
    if run.returncode or not checks:
        checks.append({"check": "the script", "failed": (run.stderr.strip().splitlines() or ["no output"])[-1][:300]})
    for check in checks:
        print(f"{name:18} {check['check']:40} {check.get('failed', 'ok')}", flush=True)
    return {"versions": versions, "checks": {check["check"]: check.get("failed", "ok") for check in checks}}


def main() -> None:
    """Run the clients, and write what each did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", type=Path, required=True, help="a task file with the arm prompt")
    parser.add_argument("--only", nargs="*", default=list(CLIENTS), choices=list(CLIENTS))
    options = parser.parse_args()
    done = json.loads(RESULT.read_text()) if RESULT.exists() else {"clients": {}}
    with serving(options.task) as (url, key):
        for name in options.only:
            done["clients"][name] = checked(name, CLIENTS[name], url, key, "prompt")
            done |= {"machine": describe_machine(), "model": "smollm2-135m-q4"}
            write_json(
                RESULT, {**done, "clients": {one: done["clients"][one] for one in CLIENTS if one in done["clients"]}}
            )


if __name__ == "__main__":
    main()
