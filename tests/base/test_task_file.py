"""Typing errors in trimtab.toml: one line that names the key and says what to do, never a traceback."""

from pathlib import Path

import pytest

from trimtab.base.errors import InputError, MissingError
from trimtab.base.task import Task, load_task, parse_arm, with_budget

PLAIN = '[task]\nname = "t"\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n[base]\nmodel = "m"\n'


def load(folder: Path, text: str | bytes) -> Task:
    (folder / "rows.jsonl").write_text("{}\n")
    file = folder / "trimtab.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_task(file)


def test_a_plain_file_loads_with_and_without_a_byte_order_mark(tmp_path: Path):
    assert load(tmp_path, PLAIN) == load(tmp_path, b"\xef\xbb\xbf" + PLAIN.encode())


@pytest.mark.parametrize(
    ("added", "field", "said"),
    [
        ('[target]\nquality = "0.8"\n', "target.quality", "number without quotes"),
        ("[target]\nquality = true\n", "target.quality", "number without quotes"),
        ("[target]\nlatency_p95_ms = inf\n", "target.latency_p95_ms", "finite"),
        ("[study]\nseeds = true\n", "study.seeds", "whole number"),
        ('[study]\nseeds = "3"\n', "study.seeds", "whole number"),
        ('[study]\nbudget = "0m"\n', "study.budget", "a budget of nothing"),
        (
            '[study]\nbudget = "٣m"\n',
            "study.budget",
            "should be a time such as 90s, 30m or 2h, or an amount such as 20 USD (found",
        ),
        ('[study]\narms = "lora"\n', "study.arms", 'a list, as in ["one", "two"]'),
        ('[study]\narms = ["lora", "lora+prompt"]\n', "study.arms", "always there; write lora"),
        ('[study]\narms = ["lora+"]\n', "study.arms", "did you mean lora?"),
        ('[arm.w]\nweights = "base"\nrank = 8\n', "arm.w", "rank is not used"),
        ('[arm.w]\nweights = "full"\nlayers = 2\n', "arm.w", "layers is not used"),
        ('[arm.w]\nweights = "lora"\nshots = 3\n', "arm.w", "shots is not used"),
        ('[arm.w]\nweights = "lora"\nstages = []\n', "arm.w", "stages is empty"),
        ('[arm.w]\nweights = "lora"\nstages = ["sft", "sft"]\n', "arm.w", "twice"),
        ('[[arm]]\nweights = "lora"\n', "arm", "should be a table"),
        ('[api.x]\nmodel = "m"\nurl = "http:///v1"\n', "api.x.url", "names no host"),
        ('[api.x]\nmodel = "m"\nurl = "http://h:99999/v1"\n', "api.x.url", "port"),
        ('[api.x]\nmodel = "m"\nurl = "http://user:secret@h/v1"\n', "api.x.url", "key_env"),
        ("[cost]\nquestions_per_month = inf\n", "cost.questions_per_month", "finite"),
        ("[cost]\nmachine_hour = 0.4\n", "cost.machine_hour", "a table of its own"),
        (
            '[cost]\nmachine_hour = { price = 1, as_of = "May", source = "x" }\n',
            "cost.machine_hour.as_of",
            ": should be a date",
        ),
        ('[cost]\nhosting = "on"\n', "cost.hosting", ": should be 'always-on' or 'on-demand' (found 'on')"),
        ('[api.x]\nmodel = "m"\nurl = "h/v1"\n', "api.x.url", ": should begin with http:// or https:// (found"),
        ('[api.X]\nmodel = "m"\nurl = "http://h/v1"\n', "api", "rename it"),
        ("[targets]\nquality = 0.8\n", "targets", "did you mean target?"),
        ("[reward]\nmetrics = 1.0\n", "reward.metrics", "unknown key; did you mean metric?"),
        ("[reward]\nmetric = 0\n", "reward.metric", "greater than 0"),
        ('[reward]\nmetric = "all"\n', "reward.metric", "number without quotes"),
        ("[reward]\nformat = 1.0\n", "reward.format", "task.format is not set; set it, or take format out"),
        ("[reward]\ncitation = 0.5\n", "reward.citation", "no documents to cite; set data.documents, or take"),
        ("[reward]\ntests = 1.0\n", "reward.tests", 'name it: data.columns = { tests = "…" }, or take tests out'),
        ('[reward]\nprogram = ["judge"]\n', "reward.program", "a table of its own"),
        ("[reward]\nprogram = { argv = [] }\n", "reward.program.argv", "at least 1 item"),
        ("[reward]\nmodel = { runs = 'x' }\n", "reward.model.runs", "unknown key; did you mean run?"),
    ],
)
def test_a_wrong_value_is_refused_in_plain_words(tmp_path: Path, added: str, field: str, said: str):
    with pytest.raises(InputError) as caught:
        load(tmp_path, PLAIN + added)
    assert caught.value.field == field
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_misspelt_table_is_named_rather_than_called_missing(tmp_path: Path):
    with pytest.raises(InputError, match=r"bas: unknown key; did you mean base\?"):
        load(tmp_path, PLAIN.replace("[base]", "[bas]"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"missing: \[task\] with its kind, \[data\]; add them as trimtab init writes"),
        ("[data]\n", r"missing: \[task\] with its kind; add it as trimtab init writes"),
        ("[task]\n[api.big]\n", r"missing: task\.kind, \[data\], api\.big\.url, api\.big\.model; add them"),
        ("[task]\n[data]\n", r"task\.kind: required key is missing; set it"),
        ("[task]\nknd = 'answer'\n", r"task\.knd: unknown key; did you mean kind\?"),
    ],
)
def test_all_that_is_missing_is_told_together(tmp_path: Path, text: str, said: str):
    with pytest.raises(InputError, match=said):
        load(tmp_path, text)


def test_a_reward_is_its_parts_and_their_weights_and_without_any_the_metric(tmp_path: Path):
    assert load(tmp_path, PLAIN).reward.weights == {"metric": 1.0}
    reward = '[reward]\nlength = 1\nprogram = { argv = ["judge"], weight = 0.5 }\nmodel = { run = "x" }\n'
    assert load(tmp_path, PLAIN + reward).reward.weights == {"length": 1.0, "program": 0.5, "model": 1.0}


def test_a_name_and_the_models_have_defaults(tmp_path: Path):
    folder = tmp_path / "our tickets!"
    folder.mkdir()
    task = load(folder, '[task]\nkind = "answer"\n[data]\nexamples = ["rows.jsonl"]\n')
    assert (task.task.name, task.base.model, task.base.embedding) == ("our-tickets", "smollm2-135m-q4", "minilm-l6")
    assert load(folder, PLAIN).task.name == "t"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("trimtab.toml", "no task file; write one with: trimtab init {here}"),
        (".", "no task file; write one with: trimtab init {here}"),
        ("other.toml", "no such task file; trimtab init {here} writes {here}/trimtab.toml"),
        ("none/trimtab.toml", "no such folder; check the path"),
    ],
)
def test_a_missing_task_file_sends_to_nothing_that_refuses(tmp_path: Path, asked: str, said: str):
    with pytest.raises(MissingError) as caught:
        load_task(tmp_path / asked)
    assert str(caught.value).partition(": ")[2] == said.format(here=tmp_path)


def test_beside_another_task_file_that_one_is_named(tmp_path: Path):
    """`trimtab init` would refuse: there is a task file already."""
    load(tmp_path, PLAIN)
    with pytest.raises(MissingError, match=r"other\.toml: no such task file; there is .*/trimtab\.toml$"):
        load_task(tmp_path / "other.toml")
    with pytest.raises(MissingError, match=r"trimtb\.toml: no such task file; did you mean trimtab\.toml\?"):
        load_task(tmp_path / "trimtb.toml")


def test_commands_in_messages_name_the_task_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    load(tmp_path, PLAIN)
    monkeypatch.chdir(tmp_path)
    assert load_task("trimtab.toml").command("study") == "trimtab study"
    Path("my tasks").mkdir()
    (Path("my tasks") / "a.toml").write_text(PLAIN.replace("rows", "../rows"))
    assert load_task("my tasks/a.toml").command("train lora") == "trimtab train lora --task 'my tasks/a.toml'"


@pytest.mark.parametrize("name", ["lora", "api-x", "rag", "freeze-docs", "lora+rag"])
def test_a_name_that_means_an_arm_says_what_that_is(tmp_path: Path, name: str):
    with pytest.raises(
        InputError, match="means an arm already, and its name says its weights; take weights out"
    ) as caught:
        load(tmp_path, PLAIN + f'[arm."{name}"]\nweights = "lora"\nrank = 4\n')
    assert caught.value.field == f"arm.{name}"


def test_a_table_of_an_arm_sets_what_its_name_leaves_open(tmp_path: Path):
    table = '[arm.lora]\nepochs = 1\n[arm."rag+lora"]\nrank = 4\npassages = 2\n[arm.few-shot]\nshots = 8\n'
    task = load(tmp_path, PLAIN.replace("[data]", '[data]\ndocuments = ["rows.jsonl"]') + table)
    lora, both, shots = (parse_arm(name, task) for name in ("lora", "lora+rag", "few-shot"))
    assert (lora.name, lora.weights, lora.stages, lora.context) == ("lora", "lora", ("sft",), "prompt")
    assert lora.settings == {"epochs": 1.0}
    assert (both.name, both.stages, both.context) == ("lora+rag", ("sft",), "rag")
    assert both.settings == {"rank": 4, "passages": 2}
    assert parse_arm("rag+lora", task) == both
    assert (shots.weights, shots.settings) == ("base", {"shots": 8})
    names = [arm.name for arm in task.arms]
    assert len(names) == len(set(names))
    assert parse_arm("lora-docs", task).settings == {}, "another arm"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[arm.linear]\nrank = 4\n", "arm linear has no settings; take the table out"),
        ("[arm.rag]\nepochs = 1\n", r"arm\.rag: epochs is not used where weights is 'base'"),
        ('[arm."few-shot+nearest-shots"]\nshots = 1\n', "do not go together; take one of them"),
    ],
)
def test_a_setting_that_an_arm_does_not_take_is_refused(tmp_path: Path, table: str, said: str):
    with pytest.raises(InputError, match=said):
        load(tmp_path, PLAIN + table)


@pytest.mark.parametrize("name", ["api-\\u001b[2J", "api-" + "x" * 100_000, "Lora"])
def test_a_name_is_looked_at_before_what_it_means(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="rename it") as caught:
        load(tmp_path, PLAIN + f'[arm."{name}"]\nrank = 4\n')
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)


def test_an_arm_of_ones_own_composes_its_context_and_sets_each_stage(tmp_path: Path):
    documents = PLAIN.replace("[base]", 'documents = ["rows.jsonl"]\n[base]')
    own = """
[arm.wide]
weights = "lora"
stages = ["docs", "sft"]
context = "few-shot+rag"
learning_rate = { docs = 1e-4, sft = 5e-4 }
epochs = { docs = 1 }
shots = 2
passages = 3
"""
    arm = parse_arm("wide", load(tmp_path, documents + own))
    assert (arm.context, arm.stages) == ("rag+few-shot", ("docs", "sft"))
    assert arm.settings["learning_rate"] == {"docs": 1e-4, "sft": 5e-4}


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ('stages = ["sft"]', "stages train nothing"),
        ('weights = "lora"\nlearning_rate = { docs = 1e-4 }', "names the stage 'docs'"),
        ('weights = "lora"\nepochs = { dpo = 1 }', "names the stage 'dpo'"),
        ('context = "few-shot+nearest-shots"', "do not go together"),
        ('context = "rags"', "is no context"),
        ('weights = "api-big"', r"has no \[api.big\] table"),
        ('weights = "linear"', "is no method"),
        ('weights = "lora"\nshots = 2', "shots is not used"),
        ("rank = 4", "rank is not used where weights is 'base'"),
    ],
)
def test_an_arm_of_ones_own_that_would_do_nothing_of_what_it_says_is_refused(tmp_path: Path, own: str, said: str):
    with pytest.raises(InputError, match=said):
        load(tmp_path, PLAIN + f"[arm.own]\n{own}\n")


def test_one_arm_named_in_two_orders_is_named_twice(tmp_path: Path):
    arms = 'arms = ["lora+few-shot", "few-shot+lora"]'
    with pytest.raises(InputError, match="an arm is named twice"):
        load(tmp_path, PLAIN + f"[study]\n{arms}\n")


def test_an_arm_that_no_file_names_is_not_said_to_stand_in_one(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        parse_arm("lorra", load(tmp_path, PLAIN))
    assert str(caught.value) == "unknown arm 'lorra'; did you mean lora?"


@pytest.mark.parametrize("path", ["**x", "a**", "***.jsonl", "x" * 5000, ""])
def test_a_path_that_cannot_be_one_is_refused(tmp_path: Path, path: str):
    with pytest.raises(InputError) as caught:
        load(tmp_path, PLAIN.replace("rows.jsonl", path))
    assert str(caught.value.field).startswith("data.examples")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "9" * 5000,
        PLAIN.encode("utf-16"),
        PLAIN.encode() + b"\xe9",
        'file = "x"\n' + PLAIN,
    ],
)
def test_what_is_no_task_file_is_refused(tmp_path: Path, text: str | bytes):
    with pytest.raises(InputError):
        load(tmp_path, text)


def test_an_unknown_column_role_is_named_without_the_whole_table(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        load(tmp_path, PLAIN.replace("[base]", 'columns = { inputt = "q" }\n[base]'))
    assert "use one of: input, output" in str(caught.value)
    assert "rows.jsonl" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "labels", "said"), [("answer", '["a"]', 'for kind "classify"'), ("classify", '["a", "a"]', "twice")]
)
def test_labels_fit_the_kind_and_stand_once(tmp_path: Path, kind: str, labels: str, said: str):
    text = PLAIN.replace('kind = "answer"', f'kind = "{kind}"\nlabels = {labels}')
    with pytest.raises(InputError, match=said):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("kind", "merge", "said"),
    [
        ("answer", '{ "A" = "a" }', r"labels\.merge: is for kind 'classify', and this is 'answer'; take it out"),
        ("classify", '{ "A" = "a", "a" = "b" }', "merge reads 'a' as another label and another as 'a'; name the last"),
    ],
)
def test_merged_labels_fit_the_kind_and_end_in_a_label(tmp_path: Path, kind: str, merge: str, said: str):
    text = PLAIN.replace('kind = "answer"', f'kind = "{kind}"') + f"[labels]\nmerge = {merge}\n"
    with pytest.raises(InputError, match=said):
        load(tmp_path, text)


def test_a_column_is_not_question_and_answer_at_once(tmp_path: Path):
    with pytest.raises(InputError, match="as question and as answer"):
        load(tmp_path, PLAIN.replace("[base]", 'columns = { input = "q", output = "q" }\n[base]'))


@pytest.mark.parametrize(
    "setting",
    [
        "questions_per_month = 1e300",
        "horizon_months = 1e300",
        "horizon_months = 1e-300",
        "utilisation = 1e-300",
        'machine_hour = { price = 1e300, as_of = 2026-11-01, source = "list" }',
        "change = { share = 0.5, per_month = 1e300, lead_days = 1 }",
        "change = { share = 0.5, per_month = 1, lead_days = 1e300 }",
        "change = { kinds = [{ share = 0.5, per_month = 1e300 }], lead_days = 1 }",
    ],
)
def test_costs_beyond_all_numbers_are_refused_before_anything_is_counted(tmp_path: Path, setting: str):
    with pytest.raises(InputError, match=r"cost\..*should be (less|greater) than or equal to"):
        load(tmp_path, PLAIN + f"[cost]\n{setting}\n")


def test_facts_change_at_one_rate_or_by_kind(tmp_path: Path):
    kinds = "kinds = [{ share = 0.1, per_month = 4 }, { share = 0.3, per_month = 0.02 }]"
    change = load(tmp_path, PLAIN + f"[cost]\nchange = {{ {kinds}, lead_days = 3 }}\n").cost.change
    assert change is not None
    assert change.rates == ((0.1, 4.0), (0.3, 0.02))


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("share = 0.5, lead_days = 1", "needs either both share and per_month, or kinds"),
        ("lead_days = 1", "needs either both share and per_month, or kinds"),
        ("share = 0.5, per_month = 1, kinds = [{ share = 0.1, per_month = 4 }], lead_days = 1", "needs either both"),
        ("kinds = [{ share = 0.7, per_month = 4 }, { share = 0.4, per_month = 1 }], lead_days = 1", "more than 1"),
        ("kinds = [{ share = 0.7 }], lead_days = 1", r"cost\.change\.kinds.*per_month"),
        ("kinds = [{ share = 0.7, per_month = 4 }]", r"cost\.change.*lead_days"),
    ],
)
def test_a_change_that_is_stated_twice_or_in_part_is_refused(tmp_path: Path, stated: str, said: str):
    with pytest.raises(InputError, match=said):
        load(tmp_path, PLAIN + f"[cost]\nchange = {{ {stated} }}\n")


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_token_price_beyond_all_numbers_is_refused(tmp_path: Path, side: str):
    price = {"input": "1.0", "output": "1.0", side: "1e300"}
    fees = ", ".join(f"{name} = {value}" for name, value in price.items())
    api = f'url = "https://a/v1"\nmodel = "m"\nprice_per_million = {{ {fees}, as_of = 2026-11-01, source = "list" }}'
    with pytest.raises(InputError, match="should be less than or equal to"):
        load(tmp_path, PLAIN + f"[api.big]\n{api}\n")


@pytest.mark.parametrize("length", [65, 300])
def test_a_name_that_no_folder_can_bear_is_refused(tmp_path: Path, length: int):
    name = "a" * length
    own = (f'[arm.{name}]\nweights = "lora"\n', f'[api.{name}]\nurl = "https://a/v1"\nmodel = "m"\n')
    for table in own:
        with pytest.raises(InputError, match=rf"has {length} letters, and 64 are the most; rename it") as caught:
            load(tmp_path, PLAIN + table)
        assert name not in str(caught.value)
    with pytest.raises(InputError) as caught:
        parse_arm(name, load(tmp_path, PLAIN))
    assert len(str(caught.value)) < 200
    load(tmp_path, PLAIN + own[0].replace(name, "a" * 64))


def test_another_budget_leaves_open_what_the_file_leaves_open(tmp_path: Path) -> None:
    """Seeds that no file states may be added where dev asks for them."""
    task = load(tmp_path, PLAIN)
    assert "seeds" not in with_budget(task, "2h").study.model_fields_set
    assert with_budget(task, "2h").study.budget == "2h"
    stated = with_budget(load(tmp_path, PLAIN + "[study]\nseeds = 1\n"), "2h").study
    assert "seeds" in stated.model_fields_set
    with pytest.raises(InputError, match="'soon' is neither a time nor an amount"):
        with_budget(task, "soon")


HOUR = 'machine_hour = { price = 0.5, as_of = 2026-11-01, source = "ours" }'
BIG = '[api.big]\nurl = "http://127.0.0.1:9"\nmodel = "m"\n'
PRICE = 'price_per_million = { input = 1.0, output = 2.0, as_of = 2026-11-01, source = "list" }\n'


def test_a_budget_in_money_is_the_time_that_it_buys(tmp_path: Path) -> None:
    task = load(tmp_path, PLAIN + f'[study]\nbudget = "20 USD"\n[cost]\n{HOUR}\n')
    assert task.budget_seconds == 40 * 3600
    assert task.seconds_of(0.25) == 1800
    assert with_budget(task, "2h").budget_seconds == 7200
    assert with_budget(task, "2h").seconds_of(0.25) == 0.0
    assert with_budget(task, "1.5USD").budget_seconds == 3 * 3600


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", r"study\.budget: a budget in money, and a machine hour has no price; state machine_hour"),
        (
            f'[cost]\ncurrency = "EUR"\n{HOUR}\n',
            r"a budget in USD, and the prices of \[cost\] are in EUR; write it in EUR",
        ),
        (f"[cost]\n{HOUR}\n{BIG}", r"what api-big asks has no price; state price_per_million under \[api\.big\]"),
    ],
)
def test_a_budget_in_money_without_a_price_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load(tmp_path, PLAIN + f'[study]\nbudget = "20 USD"\n{more}')
    load(tmp_path, PLAIN + f'[study]\nbudget = "20 USD"\n[cost]\n{HOUR}\n{BIG}{PRICE}')


def test_a_budget_in_money_counts_what_a_judge_asks(tmp_path: Path) -> None:
    judged = PLAIN.replace('kind = "answer"', 'kind = "answer"\nmetric = "judged"')
    judged += '[judge]\ncriteria = { good = "Is good." }\nby = "big"\n[study]\narms = ["prompt"]\nbudget = "20 USD"\n'
    judged += f"[cost]\n{HOUR}\n{BIG}"
    with pytest.raises(InputError, match="what api-big asks has no price"):
        load(tmp_path, judged)
    assert load(tmp_path, judged + PRICE).judging_endpoint == "big"


def test_an_arm_that_was_trained_to_judge_checks_no_sentences(tmp_path: Path) -> None:
    judged = PLAIN.replace('kind = "answer"', 'kind = "answer"\nmetric = "judged"')
    judged += '[judge]\ncriteria = { good = "Is good." }\ngroundedness = true\n'
    assert load(tmp_path, judged).judge.groundedness
    with pytest.raises(
        InputError, match="an arm that was trained to judge reads no passages; leave out `groundedness`"
    ):
        load(tmp_path, f'{judged}by = "judging/trimtab.toml"\n')
