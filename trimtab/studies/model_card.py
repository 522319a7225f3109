"""Model card of an export in the Hugging Face Hub's format: description, measurements, usage, licences.

Foreign text (rows, folders, task files, records) passes through `escape_markdown` or `code_block`, and in commands
through `shlex`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab.arms.answerers import read_calibration
from trimtab.arms.fingerprint import ROWS, digest_of, fingerprint_of
from trimtab.arms.session import Session
from trimtab.arms.store import SavedArm, read_arm, read_run
from trimtab.base.files import read_object, read_own
from trimtab.base.grammar import HEAD, describe_arm
from trimtab.base.records import Arm
from trimtab.base.results import ArmRecord, ArmResult
from trimtab.exports.hf import adapter_kind, adapter_rank
from trimtab.exports.readers import CLASSIFIER_KEYS
from trimtab.exports.signing import SIGNATURE
from trimtab.model.adapters.qlora import QUANTIZED_FILE
from trimtab.model.catalog import CATALOGUE, hub_id_of, loadable_name
from trimtab.reports.markdown import code_block, escape_markdown
from trimtab.studies.equivalence import MEASURED, EquivalenceCheck

NOT_KNOWN = "not known"
_LIBRARIES = {"peft": "peft", "merged": "transformers", "gguf": "gguf", "bundle": "trimtab"}
_HUB_TASKS = {"classify": "text-classification", "answer": "question-answering", "generate": "text-generation"}
_HUB_LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "bsd-3-clause", "gemma", "llama3"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The inputs of a card besides the session: the arm, where it was saved, the export and its equivalence checks."""

    arm: Arm
    saved: SavedArm | None
    format: str
    quantize: str | None
    proofs: tuple[EquivalenceCheck, ...]
    openings: int
    signed: bool = False
    has_modelfile: bool = False

    @property
    def record(self) -> ArmRecord | None:
        """Return the arm's record from its study."""
        return read_arm(self.saved.folder.parent) if self.saved else None

    @property
    def result(self) -> ArmResult | None:
        """Return the arm's result in its study."""
        record = self.record
        return record.result if record else None


def render_model_card(session: Session, facts: Facts, notes: Sequence[str] = ()) -> str:
    """Return `README.md`: YAML for the hub, then text for people. What was not measured is stated as such."""
    licence = base_licence(session)
    sections = {
        "What it is": _overview_section(session, facts),
        "Does it answer like what was measured": [
            *(f"- {_proof_line(one)}" for one in facts.proofs),
            *map(escape_markdown, notes),
        ],
        "Scores": _scores_section(session, facts),
        "How it was made": _training_section(facts),
        "Run it": [*_usage_section(session, facts), *_verification_section(facts)],
        "Data": _data_section(session, facts),
        "Limits": _limits_section(facts),
        "Licences": [
            f"- Base model {escape_markdown(session.task.base.model)}: {escape_markdown(licence)}",
            f"- Training data, as its rows say: {_counts(row.licence for row in _rows(session))}",
        ],
    }
    body = "\n".join(f"\n## {title}\n\n" + "\n".join(lines) for title, lines in sections.items())
    title = escape_markdown(f"{session.task.task.name}: {facts.arm.name}")
    return f"---\n{_front_matter(session, facts, licence)}---\n\n# {title}\n{body}\n"


def base_licence(session: Session) -> str:
    """Return the licence of the base model, from its folder or the catalogue."""
    file = session.base_folder / "trimtab-model.json"
    if file.is_file():
        return str(read_object(file).get("licence", NOT_KNOWN))
    entry = CATALOGUE.get(session.task.base.model)
    return entry.licence if entry else NOT_KNOWN


def _proof_line(proof: EquivalenceCheck) -> str:
    """Return the result of one equivalence check."""
    parts = [f"{escape_markdown(proof.sentence)}."]
    if proof.reference == MEASURED:
        parts.append(f"The arm was measured in {proof.precision}.")
    if proof.ties and proof.precision == "bf16":
        parts.append("A tie: both tokens are so nearly equally likely that the rounding of bf16 decides between them.")
    if proof.lost:
        parts.append(f"Score {proof.lost.measured:.3f} as measured, {proof.lost.exported:.3f} here.")
    return " ".join(parts)


def _front_matter(session: Session, facts: Facts, licence: str) -> str:
    """Return the YAML for the hub in ASCII: every other character is escaped, so that none ends the block or controls a
    terminal.
    """
    import yaml
    from huggingface_hub import EvalResult, ModelCardData

    task, head, result = session.task, HEAD in facts.arm.stages, facts.result
    known = licence.lower() if licence.lower() in _HUB_LICENCES else "other"
    scores = []
    if result is not None and result.score is not None:
        scores = [
            EvalResult(
                task_type=_HUB_TASKS[task.task.kind],
                dataset_name=task.task.name,
                dataset_type="private",
                dataset_split="test",
                metric_type=task.metric,
                metric_value=round(result.score.value, 4),
                metric_name=f"{task.metric}, {_interval(result)}",
            )
        ]
    data: Any = ModelCardData(
        license=known,
        license_name=licence if known == "other" else None,
        base_model=hub_id_of(task.base.model, task.folder),
        library_name=_LIBRARIES[facts.format],
        pipeline_tag="text-classification" if head else "text-generation",
        tags=["trimtab", facts.arm.name, *([facts.quantize] if facts.quantize else [])],
        model_name=f"{task.task.name}-{facts.arm.name}" if scores else None,
        eval_results=scores or None,
    )
    return str(yaml.safe_dump(data.to_dict(), sort_keys=False, allow_unicode=False))


def _overview_section(session: Session, facts: Facts) -> list[str]:
    task = session.task
    words = describe_arm(facts.arm, _training_figures(facts))
    at = f" at {task.base.revision}" if task.base.revision else ""
    lines = [f"{escape_markdown(words[0].upper() + words[1:])}. Made and measured by Trimtab {version('trimtab')}."]
    lines.append(f"Base model: {escape_markdown(task.base.model + at)}.")
    if task.task.instruction:
        lines.append(
            f"It was measured under this instruction, as the system turn:\n\n{code_block(_instruction(facts, task))}"
        )
    return lines


def _instruction(facts: Facts, task: Any) -> str:
    chosen = facts.saved.chosen.get("instruction") if facts.saved else None
    return str(chosen or task.task.instruction)


def _scores_section(session: Session, facts: Facts) -> list[str]:
    result = facts.result
    if result is None or result.score is None:
        command = code_block(session.task.command("study"))
        return [
            f"No study has measured this arm; the figures above are all there are. This would measure it:\n\n{command}"
        ]
    lines = [f"- {session.task.metric} on test: {_interval(result)}, {result.score.n} questions"]
    lines += [
        f"- {escape_markdown(name)}: {part.value:.3f} [{part.low:.3f}, {part.high:.3f}], {part.n}"
        for name, part in result.slices.items()
    ]
    if result.abstention:
        lines.append(f"- abstaining: {_pairs(result.abstention)}")
    calibration = read_calibration(facts.saved.folder) if facts.saved else None
    if calibration is not None:
        on = f"chosen on {calibration.dev} dev questions" if calibration.dev else "nothing fitted, dev is too small"
        error = result.extras.get("ece")
        measured = f", calibration error {error:.3f} on test" if error is not None else ""
        lines.append(
            f"- probabilities: way {calibration.way}, temperature {calibration.temperature:.3g}, {on}{measured}"
        )
    return lines


def _interval(result: ArmResult) -> str:
    score = result.score
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" if score else NOT_KNOWN


def _training_section(facts: Facts) -> list[str]:
    arm, lines = facts.arm, []
    stages = ", then ".join(arm.stages) or "none: nothing was trained"
    lines.append(f"- weights: {arm.weights}; stages: {stages}; context: {arm.context}")
    if facts.saved and facts.saved.chosen:
        lines.append(f"- settings: {_pairs({k: v for k, v in facts.saved.chosen.items() if k != 'instruction'})}")
    result = facts.result
    effort = result.effort if result else None
    if effort is not None:
        lines.append(
            f"- searched on dev for {effort.seconds:.0f} s, {len(effort.trials)} trials; ended: "
            f"{escape_markdown(effort.stopped)}"
        )
    run, figures = read_run(facts.saved.folder) if facts.saved else None, _training_figures(facts)
    seconds = result.train_seconds if result else (run.result.seconds if run and run.result else 0.0)
    if seconds:
        steps = figures.get("steps", 0.0)
        made = f": {steps:,.0f} steps, {figures['epochs']:.3g} epochs of the last stage" if steps else ""
        lines.append(f"- trained for {seconds:.0f} s{made}")
    return lines


def _training_figures(facts: Facts) -> Mapping[str, float]:
    """Return the figures of the arm's training, from its study or else its run."""
    if facts.result is not None:
        return facts.result.extras
    run = read_run(facts.saved.folder) if facts.saved else None
    return run.result.figures if run and run.result else {}


def usage_commands(session: Session, facts: Facts, folder: Path) -> tuple[str, ...]:
    """Return the shell commands that use an export in `folder`; none for an adapter that only Python code loads."""
    if facts.format == "bundle":
        return (shlex.join(["trimtab", "serve", "--bundle", str(folder)]),)
    task, head = session.task, HEAD in facts.arm.stages
    name, dtype = task.task.name, _dtype(session)
    common = f"--dtype {dtype} --max-model-len {session.context_tokens}".split()
    if facts.format == "gguf":
        ollama = ["ollama", "create", name, "-f", str(folder / "Modelfile")]
        llama = ["llama-server", "-m", str(folder / "model.gguf"), "--jinja", "--temp", "0"]
        return tuple(map(shlex.join, ([ollama] if facts.has_modelfile else []) + [llama]))
    if facts.format == "merged":
        runner = ["--runner", "pooling"] if head else ["--generation-config", "auto"]
        return (shlex.join(["vllm", "serve", str(folder), "--served-model-name", name, *common, *runner]),)
    adapter = facts.saved.folder / "adapter" if facts.saved else None
    kind = adapter_kind(adapter) if adapter else ""
    settings = read_object(adapter / "adapter_config.json") if adapter and kind else {}
    if _is_packed(facts) or kind != "LORA" or settings.get("use_dora") or head:
        return ()
    rank = adapter_rank(adapter) if adapter else None
    fitting = next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= (rank or 8)), rank)
    base, revision = loadable_name(task.base.model, session.base_folder, task.folder)
    served = f"{shlex.quote(base)} --revision {shlex.quote(revision)}" if revision else _in_shell(base)
    lora = [*common, "--enable-lora", "--max-lora-rank", str(fitting), "--lora-modules", f"{name}={folder}"]
    return (f"vllm serve {served} {shlex.join(lora)}",)


def _usage_section(session: Session, facts: Facts) -> list[str]:
    if facts.format == "bundle":
        asked = "- `trimtab serve --bundle FOLDER` or `trimtab ask --bundle FOLDER`, with this folder"
        return [asked, *_bundled_base_note(session)]
    commands = usage_commands(session, facts, Path())
    served = [code_block("\n".join(commands))] if commands else []
    if facts.format != "peft":
        return served
    packed = _is_packed(facts)
    loaded = _by_peft(_dtype(session), head=HEAD in facts.arm.stages, packed=packed)
    lines = [code_block(loaded), _base_model_note(session), *served]
    if packed:
        how = f"The base model is loaded in 4 bits, as `{QUANTIZED_FILE}` has it"
        lines.append(f"\n{how}; to serve it with vLLM, export it as merged.")
    elif not commands:
        lines.append("\nvLLM takes no adapter of this kind; export it as merged to serve it there.")
    return lines


def _dtype(session: Session) -> str:
    return {"bf16": "bfloat16", "fp32": "float32"}[session.precision]


def _is_packed(facts: Facts) -> bool:
    """True for an adapter of a base model in 4 bits."""
    return facts.saved is not None and (facts.saved.folder / "adapter" / QUANTIZED_FILE).is_file()


def _by_peft(dtype: str, *, head: bool, packed: bool) -> str:
    """Return the Python code that loads an exported adapter on its base model, run in its folder."""
    kind = "AutoPeftModelForSequenceClassification" if head else "AutoPeftModelForCausalLM"
    imports, before, options = ["AutoTokenizer"], [f"from peft import {kind}"], [f'".", dtype="{dtype}"']
    if head:
        imports.append("AutoConfig")
        options += [f"{name}=config.{name}" for name in CLASSIFIER_KEYS]
    if packed:
        imports.append("BitsAndBytesConfig")
        before.insert(0, "import json\n")
        options.append(f'quantization_config=BitsAndBytesConfig(**json.load(open("{QUANTIZED_FILE}")))')
    lines = [*before, f"from transformers import {', '.join(sorted(imports))}", ""]
    lines += ['config = AutoConfig.from_pretrained(".")'] if head else []
    lines += [f"model = {kind}.from_pretrained({', '.join(options)})", 'tokenizer = AutoTokenizer.from_pretrained(".")']
    return "\n".join(lines)


def _base_model_note(session: Session) -> str:
    """Return which base model `adapter_config.json` names, and what to do if it is not found."""
    task = session.task
    name, revision = loadable_name(task.base.model, session.base_folder, task.folder)
    if revision is not None:
        return f"\nThe adapter's base model is {name} on the Hugging Face hub, at commit {revision}."
    catalogued = task.base.model in CATALOGUE
    bring = f"run `trimtab pull {task.base.model}`, which prints its folder," if catalogued else "copy its folder there"
    return (
        "\nThe base model is not on the Hugging Face hub: `adapter_config.json` names its folder on the machine of "
        f"this export. On another machine, {bring} and write the folder's absolute path in place of "
        "`base_model_name_or_path` and of the one in a command below. Or leave the file as it is, as where it is "
        "signed, load the model from its folder with transformers, and "
        'put the adapter on with `PeftModel.from_pretrained(model, ".")`.'
    )


def _bundled_base_note(session: Session) -> list[str]:
    """Return how to get the base model, which a bundle names and does not contain, onto another machine."""
    base, folder = session.task.base, session.task.folder
    if base.model in CATALOGUE or hub_id_of(base.model, folder):
        at = ["--revision", base.revision] if base.revision else []
        pull = shlex.join(["trimtab", "pull", base.model, *at])
        return ["- The base model is not in this folder; once on each machine:", "", code_block(pull)]
    return [
        "- The base model is not in this folder: on another machine, copy its folder to the path that `model` in "
        "`bundle.json` names, which begins at this folder where it is relative"
    ]


def _in_shell(folder: str) -> str:
    """Return a folder as a word of a shell command; the home folder becomes `~`, so that a card reveals no user
    name.
    """
    home = f"{Path.home()}/"
    return f"~/{shlex.quote(folder.removeprefix(home))}" if folder.startswith(home) else shlex.quote(folder)


def _verification_section(facts: Facts) -> list[str]:
    if not facts.signed:
        return []
    command = f"model_signing verify key . --signature {SIGNATURE} --public_key PUBLIC.pem"
    command += " --no-ignore-git-paths --ignore-paths .trimtab"
    opens = "`--signed-by PUBLIC.pem` opens it only so; " if facts.format == "bundle" else ""
    return [f"\nEvery file is signed; {opens}whether nothing was changed since:", code_block(command)]


def _data_section(session: Session, facts: Facts) -> list[str]:
    depends = fingerprint_of(session, [facts.arm])
    rows = session.workspace.splits
    lines = [f"- rows: {', '.join(f'{len(part)} {split}' for split, part in rows.items())}"]
    lines.append(f"- hash of the rows: `{digest_of({name: depends[name] for name in ROWS})}`")
    lines.append(f"- hash of the documents: `{depends['documents']}`, {len(session.workspace.documents)} documents")
    lines += [
        f"- hash of {escape_markdown(name)}: `{value}`"
        for name, value in depends.items()
        if name.startswith("weights of")
    ]
    lines.append(f"- sources, as the rows say: {_counts(row.source for row in _rows(session))}")
    was = _study_hash(facts)
    if was is not None and was != digest_of({name: depends[name] for name in ROWS}):
        lines.append("- The rows have changed since the study: its scores are of the rows as they were then.")
    before = facts.openings - 1
    times = f"{before} time{'s' * (before != 1)}"
    lines.append(f"- Studies and evaluations opened the test questions {times} before this export.")
    return lines


def _study_hash(facts: Facts) -> str | None:
    file = facts.saved.folder.parents[2] / "manifest.json" if facts.saved and facts.record else None
    hashes: Mapping[str, Any] = read_own(file).get("hashes", {}) if file and file.is_file() else {}
    return hashes.get("data")


def _limits_section(facts: Facts) -> list[str]:
    lines = ["- The scores hold for questions like those of the test set; elsewhere nothing is known."]
    lines.append("- Nothing was measured of safety, bias or languages other than those of the data.")
    if facts.arm.parts and facts.format != "bundle":
        parts = " and ".join(facts.arm.parts)
        lines.append(
            f"- It was measured with {parts} before each question; without them (format bundle) it answers otherwise."
        )
    if facts.format != "bundle":
        lines.append(
            "- Special tokens that a user types (`<|im_end|>`) are text to Trimtab and may be commands to another "
            "program."
        )
    return lines


def _rows(session: Session) -> Iterator[Any]:
    return (row for part in session.workspace.splits.values() for row in part)


def _counts(values: Iterator[str | None]) -> str:
    found = Counter(value or "not given" for value in values)
    return ", ".join(f"{escape_markdown(value)} ({count})" for value, count in found.most_common()) or "no rows"


def _pairs(values: Mapping[str, Any]) -> str:
    pairs = (f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in values.items())
    return escape_markdown(", ".join(pairs))
