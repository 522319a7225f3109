"""Chat templates come with models: one that takes too much is refused in one line, and what comes after it is
rendered as before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from test_prompts import tokenizer_with, turns

from trimtab.base.errors import InputError
from trimtab.data import template as templates
from trimtab.data.prompts import ChatEncoder
from trimtab.data.template import render_template

RICH = """
{%- set ns = namespace(seen=0) %}
{%- for m in messages %}
    {%- if m.role == 'system' %}{% continue %}{% endif %}
    {% generation %}
    {{ m.content | tojson(indent=2) }} {{ bos_token }}{{ loop.index0 }}
    {% endgeneration %}
    {%- set ns.seen = ns.seen + 1 %}
    {%- if ns.seen > 1 %}{% break %}{% endif %}
{% endfor %}
{% if tools is none and not documents %}{{ strftime_now('%Y') }}{% endif %}
{{ {'a': '<&>'} | tojson }}{% if add_generation_prompt %}!{% endif %}
"""


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, seconds: int) -> Iterator[None]:
    """So many seconds of processor time."""
    monkeypatch.setattr(templates, "SECONDS", seconds)
    monkeypatch.setattr(templates, "_renderer", templates._worker())
    yield
    templates._renderer.close()


def test_a_template_means_what_it_means_to_transformers() -> None:
    messages = [{"role": role, "content": f"<{role}>\n"} for role in ("system", "user", "assistant", "user")]
    tokenizer = tokenizer_with(RICH)
    wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    assert render_template(RICH, {**tokenizer.special_tokens_map, **variables}) == wanted
    assert '"<user>\\n" <s>1' in wanted


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GROWS = "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "seconds", "told"),
    [
        (LOOPS, 0, "takes more than 0 s of processor time or 512 MB of memory"),
        ("{{ 9 ** (9 ** 9) }}", 0, "takes more than 0 s of processor time or 512 MB of memory"),
        ("{{ 'a' * 10 ** 11 }}", templates.SECONDS, "takes more than 512 MB of memory"),
        (GROWS, templates.SECONDS, "takes more than 512 MB of memory"),  # half a gigabyte takes slow machines a second
        ("{{ 'ab' * 10 ** 6 }}", templates.SECONDS, "gives more than 1,000,000 letters"),
    ],
    ids=["loops", "power", "a long text", "doubled again and again", "output"],
)
def test_loops_powers_memory_and_output_without_limit_end(limited: None, template: str, told: str) -> None:
    with pytest.raises(InputError, match=f"base.model: the chat template {told}; choose another base model") as caught:
        ChatEncoder(tokenizer_with(template))
    assert "\n" not in str(caught.value)
    assert render_template("{{ x }}", {"x": 1}) == "1"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no\x1b[2J\\nmore') }}", r"\(no␛\[2J more\)"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% for %}", "Expected"),
        ("{{" + "(" * 50_000, "recursion"),
        ("{{ 10 ** 5000 }}", "limit"),
        ("{{ 'é\ud800' }}", "refuses|drops"),
    ],
)
def test_what_a_template_cannot_do_is_one_line(template: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        ChatEncoder(tokenizer_with(template)).prompt(turns("a"))
    assert "\n" not in str(caught.value)


def test_a_process_that_was_ended_is_followed_by_another() -> None:
    render_template("{{ 1 }}", {})
    process = templates._renderer._process
    assert process is not None
    process.kill()
    process.wait()
    assert render_template("{{ 2 }}", {}) == "2"


def test_it_ends_with_the_process_that_asked() -> None:
    code = (
        "from trimtab.data import template as t; t.render_template('{{ 1 }}', {}); "
        "print(t._renderer._process.pid, flush=True);import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    import psutil

    pid = int(done.stdout)
    if psutil.pid_exists(pid):
        psutil.wait_procs([psutil.Process(pid)], timeout=30)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_worker_speaks_json_lines() -> None:
    """Its answers are the only thing on its standard output, whatever a template prints."""
    worker = templates.__file__.replace("template.py", "template_worker.py")
    asked = "".join(json.dumps({"template": text, "variables": {}}) + "\n" for text in ("{{ 1 }}", "{{ x.y }}", "a\nb"))
    done = subprocess.run(
        [sys.executable, worker, "512", "5", "3"], input=asked, capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"text": "1"},
        {"error": "'x' is undefined"},
        {"text": "a\nb"},
    ]
