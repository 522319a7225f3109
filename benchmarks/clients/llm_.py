"""The command line `llm`, with functions and with a schema."""

import json
import os
import subprocess
import sys
from pathlib import Path

from checks import API_KEY, BASE_URL, MODEL, QUESTION, check

folder = Path(os.environ["LLM_USER_PATH"])
folder.mkdir(parents=True, exist_ok=True)
settings = {"model_id": "here", "model_name": MODEL, "api_base": BASE_URL, "api_key_name": "here"}
settings |= {"supports_tools": True, "supports_schema": True}
(folder / "extra-openai-models.yaml").write_text(json.dumps([settings]))
(folder / "keys.json").write_text(json.dumps({"here": API_KEY}))
CODE = """
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

def weather(city: str) -> str:
    "Say the weather of a city."
    return city
"""
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["n"]}


def llm(*arguments):
    command = [str(Path(sys.executable).parent / "llm"), "-m", "here", *arguments, QUESTION]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-200:])
    return run.stdout


check("text, streamed", lambda: llm("-o", "max_tokens", "20"))
check("two functions", lambda: llm("--functions", CODE, "-o", "max_tokens", "60", "--chain-limit", "3"))
check(
    "two functions, whole",
    lambda: llm("--functions", CODE, "-o", "max_tokens", "60", "--no-stream", "--chain-limit", "3"),
)
check("a schema", lambda: json.loads(llm("--schema", json.dumps(SCHEMA))))
