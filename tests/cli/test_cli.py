"""The command line: light, complete help, one JSON object, exit codes, one-line errors."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
from forked import run as run_forked
from typer.testing import CliRunner

from trimtab.base.errors import DivergedError, InputError, StoppedError
from trimtab.base.records import Hit, Passage
from trimtab.base.results import ArmResult, Cost, Estimate, StudyResult, Verdict, Volume
from trimtab.cli import main
from trimtab.cli.init import _choose as choose_column
from trimtab.cli.main import app
from trimtab.cli.options import machines_at
from trimtab.model.suggestions import FreeMemory

VERBS = ("init", "pull", "check", "study", "audit", "test", "train", "eval", "ask", "runs", "compare", "demo", "doctor")
HEAVY = (
    "torch",
    "transformers",
    "pydantic",
    "numpy",
    "sklearn",
    "pyarrow",
    "lancedb",
    "httpx",
    "huggingface_hub",
    "rich",
)


def invoke(*arguments: str):
    return CliRunner().invoke(app, [*arguments])


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [([], set()), (["study"], {"pydantic"}), (["pull"], {"pydantic"})],  # typer itself reads options with pydantic
)
def test_help_imports_nothing_heavy(arguments, allowed):
    code = (
        "import sys; from trimtab.cli.main import run\n"
        f"try: run([*{arguments!r}, '--help'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"found = sorted(set({HEAVY!r}) & set(sys.modules)); print('FOUND', *found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.splitlines()[-1].split()[1:]) <= allowed


@pytest.mark.parametrize(
    "words",
    [
        ["study"],
        ["check", "--json"],
        ["demo", "spam"],
        pytest.param(["serve"], marks=pytest.mark.rooms("serving")),
        pytest.param(["demo", "surface"], marks=pytest.mark.rooms("publishing")),
    ],
)
def test_what_takes_seconds_to_load_is_said_before(tmp_path: Path, words: list[str]) -> None:
    """On standard error, before torch is imported."""
    (tmp_path / "a.md").write_text("# A\nText.\n")
    (tmp_path / "trimtab.toml").write_text(
        '[task]\nkind = "answer"\n[data]\ndocuments = ["a.md"]\n[base]\nmodel = "m"\n'
    )
    code = (
        "import sys\n"
        "class Torch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': sys.exit('here torch is imported')\n"
        "sys.meta_path.insert(0, Torch())\n"
        "from trimtab.cli.main import run\n"
        f"run({words!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr.splitlines()[-2:] == ["Trimtab: loading PyTorch and transformers…", "here torch is imported"]
    assert done.stdout == ""


@pytest.mark.parametrize(
    "words",
    [["study"], ["check"], ["train", "lora"], ["eval", "rag"], ["ask", "Where?"], ["runs"]],
    ids=lambda words: words[0],
)
def test_a_task_file_that_is_not_there_is_told_before_torch_is_loaded(words, monkeypatch, tmp_path):
    monkeypatch.delenv("TRIMTAB_DEBUG", raising=False)
    code = (
        "import sys; from trimtab.cli.main import run\n"
        f"try: run([*{words!r}, '--task', 'other.toml'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, 'trimtab.studies' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["2 False False"]
    assert done.stderr == "trimtab: other.toml: no such task file; trimtab init writes trimtab.toml\n"


def test_every_verb_has_help_with_an_example_and_json():
    shown = invoke("--help").stdout
    for verb in VERBS:
        assert f"  {verb} " in shown
        text = invoke(verb, "--help").stdout
        assert f"    trimtab {verb}" in text
        assert "--json" in text


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "trimtab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == invoke("--version").stdout


def test_the_version_is_the_packages():
    import trimtab

    assert invoke("--version").stdout == f"trimtab {trimtab.__version__}\n"


@pytest.mark.rooms("serving", "upkeep", "publishing", "scale")
def test_the_reference_in_docs_is_what_help_says():
    script = Path(__file__).parents[2] / "docs" / "make_reference.py"
    done = run_forked([sys.executable, str(script), "--check"])
    assert done.returncode == 0, done.stderr


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=120)


def result(status: str = "shown") -> StudyResult:
    arms = (
        ArmResult(arm="prompt", status="done", score=estimate(0.31), passes=False, latency_p50_ms=310.2),
        ArmResult(
            arm="lora+rag",
            status="done",
            score=estimate(0.8125),
            passes=True,
            train_seconds=61.4,
            latency_p50_ms=402.0,
            latency_p95_ms=1520.0,
            cost=Cost(total=812.5, up_front=3.1, monthly=67.4, currency="USD"),
        ),
        ArmResult(arm="full", status="not_run", why="12 minutes lacking in the budget"),
    )
    verdict = Verdict(status=status, arm="lora+rag" if status == "shown" else None, sentence="The sentence [of it].")
    return StudyResult(
        study="S1",
        task="support",
        metric="token_f1",
        target=0.8,
        verdict=verdict,
        arms=arms,
        comparisons=(),
        report="r.html",
    )


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for the functions of `trimtab.studies`; what each was called with is kept under its name."""
    called: dict[str, Any] = {}
    answers: dict[str, Any] = dict.fromkeys(VERBS)

    def stand_in(verb: str):
        def function(*values: Any, **named: Any) -> Any:
            called[verb] = (values, named)
            print("noise of a library")
            if isinstance(answers[verb], BaseException):
                raise answers[verb]
            return answers[verb]

        return function

    monkeypatch.setattr("trimtab.base.task.load_task", lambda path: path)
    for verb in VERBS:
        module = ModuleType(f"trimtab.studies.{verb}")
        setattr(module, verb, stand_in(verb))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return {"called": called, "answers": answers}


def test_arms_are_named_in_one_word(verbs):
    verbs["answers"]["study"] = result()
    assert invoke("study", "--arms", "prompt, lora+rag").exit_code == 0
    assert verbs["called"]["study"][1]["arms"] == ["prompt", "lora+rag"]


@pytest.mark.parametrize(("status", "code"), [("shown", 0), ("not_shown", 1)])
def test_study_prints_the_table_or_one_object_and_exits_by_its_verdict(verbs, status, code):
    verbs["answers"]["study"] = result(status)
    shown = invoke("study", "--budget", "20m", "-t", "x/trimtab.toml", "--allow-commands", "--track", "mlflow")
    assert shown.exit_code == code
    assert verbs["called"]["study"] == (
        (Path("x/trimtab.toml"),),
        {
            "resume": None,
            "allow": (),
            "allow_commands": True,
            "budget": "20m",
            "arms": None,
            "rows": None,
            "track": "mlflow",
            "machines": None,
        },
    )
    lines = shown.stdout.splitlines()
    row = next(line for line in lines if line.startswith("lora+rag"))
    assert row.split() == ["lora+rag", "0.812", "[0.762,", "0.863]", "yes", "61", "402", "1,520", "812"]
    assert "The sentence [of it]." in lines
    assert "Report: r.html" in lines
    lacking = next(line for line in lines if line.startswith("full"))
    assert lacking.split(maxsplit=1)[1] == "not run: 12 minutes lacking in the budget"

    assert invoke("study", "--budget", "soon").exit_code == 2

    plain = invoke("study", "--json")
    assert plain.exit_code == code
    said = json.loads(plain.stdout)
    assert (said["study"], said["verdict"]["status"], said["arms"][0]["score"]) == ("S1", status, 0.31)
    assert "noise of a library" in plain.stderr


def test_the_demo_exits_0_whatever_the_verdict(verbs):
    verbs["answers"]["demo"] = result("not_shown")
    assert invoke("demo", "spam", "--cut").exit_code == 0
    assert verbs["called"]["demo"] == (("spam",), {"cut": True, "folder": None})
    assert invoke("demo").exit_code == 0
    assert verbs["called"]["demo"][0] == ("handbook",)
    assert invoke("demo", "nothing").exit_code == 2


def test_check_prints_the_audit_first_and_exits_1_when_something_must_be_mended(monkeypatch):
    from trimtab.cli import check_page
    from trimtab.studies import check as studies_check

    def stand_in(level: str):
        def check(task, *, audited, **named):
            audited(SimpleNamespace(remarks=()))
            print("timing", named["timing"])
            return SimpleNamespace(remarks=(SimpleNamespace(level=level),))

        return check

    monkeypatch.setattr("trimtab.base.task.load_task", lambda path: SimpleNamespace(command=str))
    monkeypatch.setattr(check_page, "draw_data_audit", lambda audit, console: console.print("audit"))
    monkeypatch.setattr(check_page, "draw_rest", lambda audit, result, console, study: console.print("rest"))
    for level, code in (("note", 0), ("warn", 0), ("stop", 1)):
        monkeypatch.setattr(studies_check, "check", stand_in(level))
        shown = invoke("check")
        assert (shown.exit_code, shown.stdout.splitlines()) == (code, ["audit", "timing True", "rest"])
    assert "timing False" in invoke("check", "--no-timing").stdout


def test_each_option_reaches_its_function(verbs):
    verbs["answers"] |= {"train": estimate(0.5), "eval": result().arms[0], "runs": (estimate(0.5), estimate(0.6))}
    assert invoke("train", "lora", "--seed", "3", "--resume", "R1", "--track", "wandb").exit_code == 0
    assert verbs["called"]["train"] == (
        (Path("trimtab.toml"), "lora"),
        {"seed": 3, "resume": "R1", "allow": (), "allow_commands": False, "track": "wandb"},
    )
    options = ["--split", "test", "--run", "R1", "--eight-bit", "--allow-commands", "--allow", "a", "--allow", "b"]
    assert invoke("eval", "rag", *options).exit_code == 0
    assert verbs["called"]["eval"] == (
        (Path("trimtab.toml"), "rag"),
        {"split": "test", "run": "R1", "eight_bit": True, "allow": ["a", "b"], "allow_commands": True},
    )
    assert invoke("runs", "--task", "here").exit_code == 0
    assert verbs["called"]["runs"] == ((Path("here"),), {})
    assert json.loads(invoke("runs", "--json").stdout)["runs"][1]["score"] == 0.6
    plain = json.loads(invoke("eval", "rag", "--json").stdout)
    assert (plain["arm"], plain["score"], plain["low"], plain["high"], plain["n"]) == ("prompt", 0.31, 0.26, 0.36, 120)


def test_study_says_for_which_volume_costs_are_and_which_answers_give_other_facts(verbs):
    plain = result()
    volume = Volume(questions_per_month=10_000, horizon_months=12, assumed=True)
    told = tuple(replace(arm, extras={"facts_disagree": 7.0}) if arm.arm == "prompt" else arm for arm in plain.arms)
    verbs["answers"]["study"] = replace(plain, volume=volume, arms=told)
    shown = " ".join(invoke("study").stdout.split())
    assert (
        "for an assumed 10,000 questions a month over 12 months; state yours as questions_per_month under [cost]."
        in shown
    )
    assert "Answers with other numbers or dates than the reference: 7 of prompt. token F1 pays" in shown
    verbs["answers"]["study"] = replace(plain, volume=replace(volume, assumed=False))
    assert "Costs are for 10,000 questions a month over 12 months." in invoke("study").stdout
    verbs["answers"]["study"] = replace(plain, volume=volume, arms=plain.arms[:1])
    assert "Costs are for" not in invoke("study").stdout, "there are none"


def test_study_and_eval_tell_the_share_of_exactly_right_answers_beside_the_score(verbs):
    plain = result()
    told = tuple(replace(arm, extras={"exact": 0.25}) for arm in plain.arms)
    verbs["answers"]["study"] = replace(plain, arms=told)
    assert re.search(r"\bexact\b.*\n.*\n.* 25\.0%", invoke("study").stdout)
    assert json.loads(invoke("study", "--json").stdout)["arms"][0]["extras"] == {"exact": 0.25}
    assert told[0].headline.endswith("120 questions, 25.0% exactly right")


def test_ask_shows_the_answer_and_its_sources(verbs):
    @dataclass(frozen=True)
    class Asked:
        answer: str
        arm: str
        seconds: float
        hits: tuple[Hit, ...]
        cited: tuple[int, ...]
        sentence: str | None = None
        found: bool | None = None
        is_sure: bool = True
        contexts: tuple[str, ...] = ()

    passage = Passage(id="p", document="d", title="Leave", path=("Leave", "Days"), text="30 days", source="leave.md")
    hits = tuple(Hit(passage=passage, rank=rank, score=0.5) for rank in (1, 2))
    verbs["answers"]["ask"] = Asked("30 days [1].", "rag", 0.41, hits, (2,), "You have\n30 days.", True)
    shown = invoke("ask", "How many?", "--arm", "rag")
    assert verbs["called"]["ask"] == (
        ("How many?",),
        {"task": Path("trimtab.toml"), "bundle": None, "signed_by": None, "arm": "rag", "allow": ()},
    )
    assert shown.stdout.splitlines()[1:] == [
        "30 days [1].",
        "  [1] Leave › Days  (leave.md)",
        "* [2] Leave › Days  (leave.md)",
        "* holds the answer: “You have 30 days.”",
        "rag, 0.41 s",
    ]
    verbs["answers"]["ask"] = replace(verbs["answers"]["ask"], is_sure=False)
    assert "* may hold the answer: “You have 30 days.”" in invoke("ask", "How many?", "--arm", "rag").stdout
    verbs["answers"]["ask"] = Asked("The code is 4471.", "rag", 0.41, hits, (), None, False)
    assert invoke("ask", "Which code?").stdout.splitlines()[1:] == [
        "The code is 4471.",
        "  [1] Leave › Days  (leave.md)",
        "  [2] Leave › Days  (leave.md)",
        "not found in the passages",
        "rag, 0.41 s",
    ]
    assert json.loads(invoke("ask", "How many?", "--json").stdout)["hits"][0]["passage"]["text"] == "30 days"


def test_init_prints_what_it_wrote_and_the_schema_as_it_is(verbs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    verbs["answers"]["init"] = '{"a": 1}'
    assert invoke("init", "--schema").stdout == '{"a": 1}\n'
    assert verbs["called"]["init"] == ((".",), {"columns": {}, "schema": True, "choose": None})
    assert json.loads(invoke("init", "data", "--json").stdout) == {"file": "data/trimtab.toml", "text": '{"a": 1}'}
    monkeypatch.setattr("trimtab.model.suggestions.free_memory", lambda: FreeMemory(bytes=24e9, passes=2))
    listed = r"^  trimtab pull \S+/\S+ .* Apache-2.0, .* GB to answer"
    for fast in (True, False):
        monkeypatch.setattr("trimtab.model.suggestions.is_fast", lambda fast=fast: fast)
        told = invoke("init", "data").stdout
        assert "smollm2-135m-q4 is for first runs" in told
        assert bool(re.search(listed, told, re.M)) is fast
        assert ("trimtab doctor lists" in told) is not fast
        assert "Wrote data/trimtab.toml. Edit the instruction" in told
        assert told.endswith("\nNext: trimtab check --task data/trimtab.toml\n")


@pytest.mark.parametrize(("typed", "chosen"), [("\n", "grade"), ("7\n2\n", "answer")])
def test_init_asks_what_is_learnt_with_the_guess_as_default(monkeypatch, capsys, typed, chosen):
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert choose_column("grade", {"answer": "On \x1b[2Jfloor 1"}) == chosen
    assert "\x1b" not in capsys.readouterr().out


def test_init_says_in_a_few_lines_what_it_found(tmp_path, monkeypatch):
    """The whole of it stands in the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trimtab.model.suggestions.is_fast", lambda: False)
    for number in range(6):
        (tmp_path / f"{number}.md").write_text("# Title\nText.\n")
    (tmp_path / "a.csv").write_text("message,intent\n" + "hello there,greet\ngood bye,part\n" * 20)
    told = invoke("init").stdout
    assert "examples: a.csv: column `message` is the input" in told
    assert "[task]" not in told
    assert len(told.splitlines()) <= 8
    assert (tmp_path / "trimtab.toml").read_text().count("\n") > 20


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("is wrong", "do this", file="a.csv", line=3), 2, "trimtab: a.csv:3: is wrong; do this"),
        (DivergedError("the loss is NaN"), 1, "trimtab: the loss is NaN"),
        (StoppedError("go on with: trimtab study --resume"), 3, "trimtab: go on with: trimtab study --resume"),
        (KeyboardInterrupt(), 3, "trimtab: interrupted"),
        (InputError("is\nwrong", "do"), 2, "trimtab: is wrong; do"),
        (ZeroDivisionError("a\nb"), 2, "trimtab: internal error, ZeroDivisionError: a b; run it with TRIMTAB_DEBUG=1"),
        (PermissionError(13, "Permission denied", "x"), 2, "trimtab: x: access is denied; change the permissions"),
        (MemoryError(), 2, "trimtab: the memory ran out; close other programs, set base.precision"),
        (OSError("a\nb"), 2, "trimtab: a b; check the path"),
        (
            RuntimeError("No space left (os error 28)"),
            2,
            "trimtab: RuntimeError: No space left (os error 28); free disk space",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(verbs, error, code, line):
    verbs["answers"]["study"] = error
    for verb in (["study"], ["study", "--json"]):
        shown = invoke(*verb)
        assert shown.exit_code == code
        told = shown.stderr.splitlines()[-1]
        assert told.startswith(line)
        assert "Traceback" not in shown.stderr
    assert json.loads(shown.stdout) == {"error": told.removeprefix("trimtab: "), "exit_code": code}


def test_the_notes_of_an_error_stand_below_its_line_and_not_in_json(verbs):
    verbs["answers"]["study"] = error = InputError("lacks labels", "label some")
    error.add_note("These work now:")
    error.add_note("  trimtab ask")
    shown = invoke("study", "--json")
    assert shown.exit_code == 2
    assert shown.stderr.splitlines()[-3:] == ["trimtab: lacks labels; label some", "These work now:", "  trimtab ask"]
    assert json.loads(shown.stdout) == {"error": "lacks labels; label some", "exit_code": 2}


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["stdy"], "No such command 'stdy'. Did you mean 'study'?; see: trimtab --help"),
        (["study", "--buget", "3m"], "No such option: --buget (Possible options: --budget); see: trimtab study --help"),
        (
            ["study", "--budget", "3"],
            "Invalid value for '--budget': a number and a unit, for example 90s, 30m, 2h or '20 USD'; see",
        ),
        (["eval", "rag", "--split", "tset"], "Invalid value for '--split': 'tset' is not one of 'dev', 'test'; see"),
        (["train", "lora", "--seed", "-1"], "Invalid value for '--seed': should be greater than or equal to 0; see"),
        (["eval"], "Missing argument '[PATH] ARM'; see: trimtab eval --help"),
    ],
)
def test_wrong_use_is_one_line_and_exits_2(capsys, typed, line):
    for as_json in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main.run([*typed, *as_json])
        shown = capsys.readouterr()
        assert end.value.code == 2
        (told,) = shown.err.splitlines()
        assert told.startswith(f"trimtab: {line}")
    assert json.loads(shown.out) == {"error": told.removeprefix("trimtab: "), "exit_code": 2}


@pytest.mark.parametrize(
    ("address", "labels", "store", "words"),
    [
        (None, ["zone=eu"], None, "is for the machines that --on names; add it"),
        (None, None, "s3://bucket/folder", "is for the machines that --on names; add it"),
        ("local", ["zone"], None, "'zone' is not KEY=VALUE"),
        ("local", ["=eu"], None, "'=eu' is not KEY=VALUE"),
        ("local", ["zone=eu", "zone=us"], None, "gives two values to zone"),
    ],
)
def test_options_that_name_no_machines_are_told(address, labels, store, words):
    with pytest.raises(typer.BadParameter, match=words):
        machines_at(address, store, labels)


# What a verb needs is imported once, which takes seconds; each output is that of a fork.
INTO_NOTHING = """
import json, os, sys
import trimtab.studies.runs
from trimtab.cli.main import run

def full():
    return os.open("/dev/full", os.O_WRONLY)

def closed():
    reading, writing = os.pipe()
    os.close(reading)  # as when `head` has gone away
    return writing

codes = []
cases = [(output, as_json) for output in (full, closed) for as_json in ([], ["--json"])]
for number, (output, as_json) in enumerate(cases):
    child = os.fork()
    if child == 0:
        os.dup2(output(), 1)
        os.dup2(os.open(f"{number}.err", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        run(["runs", *as_json])
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_a_standard_output_that_takes_nothing_is_one_line_or_none(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "trimtab.toml").write_text(
        '[task]\nname = "t"\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "m"\n'
    )
    done = run_forked([sys.executable, "-c", INTO_NOTHING], cwd=tmp_path, check=True)
    assert json.loads(done.stdout) == [2, 2, 0, 0]
    told = [(tmp_path / f"{number}.err").read_text() for number in range(4)]
    for line in told[:2]:
        assert len(line.splitlines()) == 1
        assert line.startswith("trimtab: standard output: no space left")
    assert told[2:] == ["", ""]


def run_here(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    code = "from trimtab.cli.main import run; run()"
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, stderr=subprocess.PIPE, **options)


def test_a_terminal_that_is_not_utf_8_gets_escapes_and_json_stays_json(tmp_path):
    for coding in ("ascii", "latin-1"):
        done = run_here("runs", "-t", str(tmp_path / "größe›"), "--json", stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONIOENCODING": coding}, encoding="latin-1")  # fmt: skip
        assert done.returncode == 2
        assert "größe›" in json.loads(done.stdout)["error"]


def test_debug_shows_the_traceback(verbs, monkeypatch):
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    verbs["answers"]["study"] = InputError("is wrong", "do this")
    assert isinstance(invoke("study").exception, InputError)


@pytest.mark.parametrize(
    ("given", "value"),
    [(["--resume"], "latest"), (["--resume", "--json"], "latest"), (["--resume", "ID"], "ID"), ([], None)],
)
def test_resume_stands_alone_or_with_an_id(verbs, given, value):
    verbs["answers"]["study"] = result()
    with pytest.raises(SystemExit) as end:
        main.run(["study", *given])
    assert not end.value.code
    assert verbs["called"]["study"][1]["resume"] == value


def test_no_words_show_the_help(capsys):
    with pytest.raises(SystemExit):
        main.run([])
    shown = capsys.readouterr()
    assert "Usage: trimtab" in shown.out + shown.err


def test_the_shell_is_told_the_verbs():
    asked = {"_TRIMTAB_COMPLETE": "complete_bash", "COMP_WORDS": "trimtab st", "COMP_CWORD": "1"}
    code = "from trimtab.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["study"]


def test_pull_takes_several_names(monkeypatch, tmp_path):
    from trimtab.model import catalog

    seen = []
    monkeypatch.setattr(
        catalog, "pull", lambda name, **options: seen.append((name, options["source"])) or tmp_path / name
    )
    shown = invoke("pull", "a", "b", "--json")
    assert json.loads(shown.stdout) == {"models": {"a": str(tmp_path / "a"), "b": str(tmp_path / "b")}}
    assert invoke("pull", "a", "--from", "x.whl").exit_code == 0
    assert seen == [("a", None), ("b", None), ("a", Path("x.whl"))]
    assert invoke("pull", "a", "b", "--from", "x.whl").exit_code == 2
