"""`export`: writes an arm as files for other programs, and checks that these answer like the arm as measured."""

from __future__ import annotations

import os
import random
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from trimtab.arms.answerers import read_calibration, ready_arm
from trimtab.arms.bundle import open_bundle, write_bundle
from trimtab.arms.contexts import Context, PromptBuilder, context_for
from trimtab.arms.linear import Answerer
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.arms.store import (
    Pick,
    SavedArm,
    StoredQuestion,
    find_saved,
    measured_precision,
    picked_arm,
    require_weights,
    required_winner,
    with_measured_rows,
)
from trimtab.arms.workspace import FOLDER, Workspace
from trimtab.base.codec import write_record
from trimtab.base.errors import InputError, PackageError
from trimtab.base.grammar import HEAD, PARTS, is_trained, method_of
from trimtab.base.machine import folder_bytes
from trimtab.base.progress import Listener, Progress
from trimtab.base.records import Arm, Example, Generation, Message
from trimtab.base.show import Shown
from trimtab.base.task import Task, require_answers
from trimtab.exports.gguf import KINDS, is_lossless, require_writable, write_gguf
from trimtab.exports.hf import (
    merged_config,
    merged_weights,
    write_adapter,
    write_classifier_config,
    write_merged,
)
from trimtab.exports.llama_cpp import LlamaCppReader, has_llama_cpp
from trimtab.exports.modelfile import modelfile, turn_template_of
from trimtab.exports.readers import ExportReader, has_peft, load_back
from trimtab.exports.signing import sign_folder
from trimtab.model.adapters.registry import virtual_token_methods
from trimtab.model.catalog import loadable_name
from trimtab.model.classifier import load_head
from trimtab.studies.equivalence import (
    ConsumerAnswers,
    EquivalenceCheck,
    Readout,
    ReferenceAnswers,
    ask_consumer,
    by_head,
    by_labels,
    by_text,
    check_bundle,
    compare_programs,
    compare_with_measured,
)
from trimtab.studies.model_card import Facts, render_model_card, usage_commands
from trimtab.studies.record import EXPORTED, count_opening
from trimtab.studies.run_context import resolve_task, run_context

Format = Literal["peft", "merged", "gguf", "bundle"]
QUESTIONS = 100  # number of test questions, drawn to represent all
KEPT = 20  # number of these stored in a bundle, so that a server can verify its answers
_WITHOUT_GENERATE = (
    "Asked token by token without a cache: PEFT's own generate gives other answers behind virtual tokens "
    "(seen with peft 0.21.2 on transformers 5.24.0)."
)
_NOT_ASKED = (
    "llama.cpp itself was not asked, only the GGUF reader of transformers; to ask it, install it and export again: "
    "pip install 'trimtab[gguf]'"
)
CARD, PROOF, MODELFILE, GGUF = "README.md", "proof.json", "Modelfile", "model.gguf"


@dataclass(frozen=True, kw_only=True, repr=False)
class ExportResult(Shown):
    """The written files and the equivalence checks. `notes`: what could not be written besides, and why. `use`: the
    shell commands that use what was written."""

    arm: str
    format: Format
    quantize: str | None
    folder: Path
    bytes: int
    proofs: tuple[EquivalenceCheck, ...]
    notes: tuple[str, ...]
    use: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """True if the export is shown to answer worse than the arm as measured, or otherwise where it must not."""
        return any(proof.failed for proof in self.proofs)

    @property
    def headline(self) -> str:
        """Return the result of the checks."""
        return "; ".join(proof.sentence for proof in self.proofs)


@dataclass(frozen=True, kw_only=True)
class _WrittenFiles:
    """The result of writing a format: True if its numbers are those measured, and what could not be written."""

    exact: bool
    notes: tuple[str, ...] = ()


def export(
    task: str | Path | Task,
    arm: str | None = None,
    *,
    format: Format,
    out: str | Path,
    quantize: str | None = None,
    run: str | None = None,
    sign: Path | None = None,
    questions: int = QUESTIONS,
    allow: Sequence[str] = (),
    listeners: Sequence[Listener] | None = None,
) -> ExportResult:
    """Write an arm into the new folder `out` and check it: the winner of the newest study unless one is named.

    `format`: `peft` (the adapter), `merged` (a transformers model, safetensors), `gguf` (for llama.cpp and Ollama,
    f16 unless `quantize` names another type) or `bundle` (the whole arm for `serve` and `ask` elsewhere: its weights
    beside the base model's, index, documents, shots, instruction, and KEPT test questions to verify it with).
    Weights are those of the run or study `run`, else of the study that showed the winner, else those of a named arm
    that were trained or measured last. `sign`: a private key that signs every file. Up to `questions` test questions
    are asked of the export, which counts as one opening of the test set. `allow` is that of `study`. `listeners` get
    every event; None shows progress on standard error. Raises InputError for a folder that is not empty and for what
    a format cannot contain, MissingError without weights, PackageError if the reading program is not installed.
    """
    if questions < 1:
        raise InputError("a proof without a question proves nothing", "ask at least 1, 100 as usual", field="questions")
    own = resolve_task(task)
    pick = Pick(arm) if arm else required_winner(own, f"export --format {format} --out {shlex.quote(str(out))}")
    chosen = picked_arm(pick, own)
    require_answers(chosen, own)
    place = Path(out)
    _require_possible(chosen, own, format, quantize, place)
    with run_context(own, [chosen], listeners=listeners, allow=allow, scores=False) as ctx:
        if pick.note:
            ctx.note(pick.note)
        saved = require_weights(find_saved(own, chosen, run or pick.study), chosen, own)
        ctx.task = with_measured_rows(own, saved)
        session = ctx.session(measured_precision(saved, own))
        progress = ctx.progress(arm=chosen.name)
        context = context_for(chosen, saved.chosen if saved else None)
        run_folder = saved.folder if saved else own.folder / FOLDER
        with _staging_folder(place) as folder:
            with ready_arm(session, chosen, context, run_folder) as ready:
                reference = _reference_answers(
                    own, draw_questions(session.workspace, questions), ready.builder, ready.answer_batch, progress
                )
                progress.emit("export", note=f"writing {format}")
                exporter = _Exporter(
                    session=session,
                    arm=chosen,
                    context=context,
                    builder=ready.builder,
                    saved=saved,
                    run=run_folder,
                    reference=reference,
                    folder=folder,
                    format=format,
                    quantize=quantize,
                    progress=progress,
                )
                written = exporter.write()
            key = f"{EXPORTED}{saved.id if saved else ''}-{chosen.name}-{format}-{quantize or ''}"
            openings = count_opening(session.workspace, key)
            proofs = exporter.proofs(written)
            facts = exporter.write_results(written, proofs, openings, sign)
            use = usage_commands(session, facts, place)
    return ExportResult(
        arm=chosen.name,
        format=format,
        quantize=quantize,
        folder=place,
        bytes=folder_bytes(place),
        proofs=proofs,
        notes=written.notes,
        use=use,
    )


@dataclass(frozen=True, kw_only=True)
class _ProofFile:
    """`proof.json`: the equivalence checks."""

    arm: str
    format: Format
    quantize: str | None
    proofs: tuple[EquivalenceCheck, ...]


def _require_possible(arm: Arm, task: Task, format: str, quantize: str | None, out: Path) -> None:
    """Refuse what is detectably impossible before anything is loaded."""
    if format not in get_args(Format):
        raise InputError(
            f"unknown format {format[:40]!r}", f"use one of: {', '.join(get_args(Format))}", field="format"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("is there already, and nothing is overwritten", "name a new or empty folder", file=out)
    if quantize is not None and format != "gguf":
        raise InputError("quantize is for gguf", "leave it out, or export as gguf", field="quantize")
    if quantize is not None and quantize not in KINDS:
        problem = f"the gguf package cannot write {quantize[:40]!r}"
        raise InputError(problem, f"use one of: {', '.join(KINDS)}", field="quantize")
    _require_form_of(arm, task, format, out)


def _require_form_of(arm: Arm, task: Task, format: str, out: Path) -> None:
    """Refuse a format that cannot hold this arm."""
    if arm.endpoint:
        problem, remedy = f"arm {arm.name} is an endpoint, whose weights are not here", "take another arm"
        raise InputError(problem, remedy)
    if not method_of(arm).uses_base and format != "bundle":
        bundle = task.command(f"export {arm.name} --format bundle --out {shlex.quote(str(out))}")
        raise InputError(f"arm {arm.name} is no language model, so only a bundle holds it", f"run: {bundle}")
    if "quote" in arm.parts and format != "bundle":
        problem = f"arm {arm.name} holds its answers to passages, which no format of a model does"
        raise InputError(problem, f"export it as bundle, or take {arm.name.replace('+quote', '')}", field="format")
    if format == "peft" and not is_trained(arm):
        problem = f"arm {arm.name} trained nothing, so there is no adapter"
        raise InputError(problem, "export it as merged, which is the base model, or as bundle", field="format")
    if format == "peft" and not has_peft():
        raise PackageError("peft", "export", "proving an adapter")
    if format == "gguf" and HEAD in arm.stages:
        problem = f"arm {arm.name} answers by a classification head, which GGUF does not hold for this architecture"
        raise InputError(problem, "export it as merged or peft", field="format")


@dataclass(frozen=True, kw_only=True)
class _Exporter:
    """Writes one format of a ready arm into a folder, and proves it. `run`: contains its `adapter/` and its
    calibration.
    """

    session: Session
    arm: Arm
    context: Context
    builder: PromptBuilder
    saved: SavedArm | None
    run: Path
    reference: ReferenceAnswers
    folder: Path
    format: Format
    quantize: str | None
    progress: Progress

    @property
    def adapter(self) -> Path:
        """Return the folder of the trained adapter."""
        return self.run / "adapter"

    def write(self) -> _WrittenFiles:
        """Write the format."""
        writers = {"peft": self._peft, "merged": self._merged, "gguf": self._gguf, "bundle": self._bundle}
        return writers[self.format]()

    def _peft(self) -> _WrittenFiles:
        task = self.session.task
        name, revision = loadable_name(task.base.model, self.session.base_folder, task.folder)
        write_adapter(
            self.adapter,
            self.folder,
            base=self.session.base,
            name=name,
            revision=revision,
            template=self.session.encoder.chat_template,
        )
        self._keep_calibration()
        # The measured arm merges the adapter into the weights and rounds once; PEFT adds the adapter's output. At fp32
        # both are equal.
        notes = (_WITHOUT_GENERATE,) if self.arm.weights in virtual_token_methods() else ()
        return _WrittenFiles(exact=self.session.precision == "fp32", notes=notes)

    def _merged(self) -> _WrittenFiles:
        encoder = self.session.encoder
        head = load_head(self.session.base, self.adapter) if HEAD in self.arm.stages else None
        write_merged(
            self.session.base,
            self.folder,
            stops=tuple(encoder.stop_ids),
            template=encoder.chat_template,
            head=head,
        )
        if head is not None:
            write_classifier_config(self.adapter, self.folder)
        self._keep_calibration()
        return _WrittenFiles(exact=True)

    def _gguf(self) -> _WrittenFiles:
        base, encoder = self.session.base, self.session.encoder
        weights = merged_weights(base)
        config, kind = merged_config(base, weights), self.quantize or "f16"
        require_writable(config, weights, base.tokenizer)
        write_gguf(
            self.folder / GGUF,
            config,
            weights,
            base.tokenizer,
            template=encoder.chat_template,
            end=encoder.answer("")[-1],
            kind=kind,
            name=f"{self.session.task.task.name}-{self.arm.name}",
        )
        self._keep_calibration()
        notes = self._modelfile() if has_llama_cpp() else (_NOT_ASKED, *self._modelfile())
        return _WrittenFiles(exact=is_lossless(weights, kind), notes=notes)

    def _modelfile(self) -> tuple[str, ...]:
        """Write the Modelfile if Ollama can express the prompt. Return what it cannot."""
        session = self.session
        shots = [
            turn
            for shot in self.builder.fixed
            for turn in (
                Message(role="user", content=shot.input),
                Message(role="assistant", content=shot.references[0]),
            )
        ]
        try:
            text = modelfile(
                turn_template_of(session.encoder),
                gguf=GGUF,
                instruction=self.builder.instruction,
                shots=[] if self.context.shot_passages else shots,
                stops=[session.base.tokenizer.decode([token]) for token in sorted(session.encoder.stop_ids)],
                most=session.max_answer_tokens,
                context=session.context_tokens,
            )
        except InputError as error:
            return (f"No Modelfile: {error.problem}.",)
        (self.folder / MODELFILE).write_text(text, encoding="utf-8")
        seen = [part for part in self.arm.parts if not PARTS[part].is_fixed_shots or self.context.shot_passages]
        if seen:
            parts = " and ".join(seen)
            return (
                f"The Modelfile holds the instruction; what {parts} adds to a prompt the caller has to add (bundle).",
            )
        return ()

    def _bundle(self) -> _WrittenFiles:
        pairs = list(zip(self.reference.examples, self.reference.measured, strict=True))[:KEPT]
        stored = [StoredQuestion(messages=example.messages, answer=one.text) for example, one in pairs]
        write_bundle(self.session, self.arm, self.context, self.builder, self.folder, saved=self.saved, stored=stored)
        return _WrittenFiles(exact=True)

    def _keep_calibration(self) -> None:
        """Copy the calibration, which is part of the answer: without it the labels would be another arm's."""
        file = self.run / "calibration.json"
        if file.is_file():
            shutil.copyfile(file, self.folder / file.name)

    def proofs(self, written: _WrittenFiles) -> tuple[EquivalenceCheck, ...]:
        """Ask the written files the questions, by the programs that read them."""
        if self.format == "bundle":
            return self._by_bundle()
        if self.format == "gguf":
            return self._by_gguf(written)
        head = HEAD in self.arm.stages
        consumer = load_back(self.folder, self.format, precision=self.session.precision, head=head)
        asked = self._ask(consumer, by_head(consumer) if head else self._readout(consumer), own_ids=False)
        return (compare_with_measured(self.reference, asked, self.session.precision, claimed=written.exact),)

    def _by_bundle(self) -> tuple[EquivalenceCheck, ...]:
        """Check that an arm loaded from its bundle builds the same prompts and gives the same answers."""
        base = self.session.fresh_base() if method_of(self.arm).uses_base else None
        bundled = open_bundle(self.folder, near=self.session.task.folder, base=base)
        context = context_for(bundled.arm, bundled.saved.chosen)
        task, examples = self.reference.task, self.reference.examples
        with ready_arm(bundled.session, bundled.arm, context, bundled.saved.folder) as ready:
            again = _reference_answers(task, examples, ready.builder, ready.answer_batch, self.progress)
            return check_bundle(self.session, self.reference, again)

    def _by_gguf(self, written: _WrittenFiles) -> tuple[EquivalenceCheck, ...]:
        """Check a GGUF file through transformers, which computes what its weights say in fp32, and llama.cpp if
        installed.

        llama.cpp is compared with both: with the arm as measured it differs by its own rounding, by that of the arm's
        precision and by that of the file; with transformers by its own alone.
        """
        reference, precision = self.reference, self.session.precision
        reader = load_back(self.folder, "gguf", precision="fp32", gguf_file=GGUF)
        exact = self._ask(reader, self._readout(reader), own_ids=True)
        claimed = written.exact and precision == "fp32"
        checks = [compare_with_measured(reference, exact, precision, claimed=claimed)]
        if has_llama_cpp():
            with closing(LlamaCppReader(self.folder / GGUF, self.session.context_tokens)) as llama:
                native = self._ask(llama, self._readout(llama), own_ids=True)
            checks[:0] = [
                compare_with_measured(reference, native, precision, claimed=False),
                compare_programs(reference, native, exact, precision),
            ]
        return tuple(checks)

    def _ask(self, consumer: ExportReader, way: Readout, *, own_ids: bool) -> ConsumerAnswers:
        def step(done: int, of: int) -> None:
            self.progress.emit("answer", step=done, of=of, note=consumer.name)

        return ask_consumer(self.session, self.reference, consumer, way, own_ids=own_ids, step=step)

    def _readout(self, consumer: ExportReader) -> Readout:
        if self.session.task.task.kind == "classify":
            return by_labels(self.session, consumer, read_calibration(self.run))
        return by_text(self.session, consumer)

    def write_results(
        self, written: _WrittenFiles, proofs: tuple[EquivalenceCheck, ...], openings: int, sign: Path | None
    ) -> Facts:
        """Write the equivalence checks and the model card, and sign everything; return what the card says."""
        proof = _ProofFile(arm=self.arm.name, format=self.format, quantize=self.quantize, proofs=proofs)
        write_record(self.folder / PROOF, proof)
        facts = Facts(
            arm=self.arm,
            saved=self.saved,
            format=self.format,
            quantize=self.quantize,
            proofs=proofs,
            openings=openings,
            signed=sign is not None,
            has_modelfile=(self.folder / MODELFILE).is_file(),
        )
        (self.folder / CARD).write_text(render_model_card(self.session, facts, written.notes), encoding="utf-8")
        if sign is not None:
            sign_folder(self.folder, sign)
        return facts


def draw_questions(workspace: Workspace, most: int) -> Sequence[Example]:
    """Return at most `most` test questions in a drawn order, so that the first ones represent all when time is up."""
    questions = list(workspace.subset("test", most))
    random.Random(0).shuffle(questions)
    return questions


def _reference_answers(
    task: Task, examples: Sequence[Example], builder: PromptBuilder, many: Answerer, progress: Progress
) -> ReferenceAnswers:
    """Return test questions, and an arm's answers to them."""
    prompts = builder.prompts(examples)
    answers: list[Generation] = []
    for start in range(0, len(prompts), BATCH_ITEMS):
        answers += many(prompts[start : start + BATCH_ITEMS])
        progress.emit("answer", step=len(answers), of=len(prompts))
    return ReferenceAnswers(task=task, examples=examples, prompts=prompts, measured=answers)


@contextmanager
def _staging_folder(out: Path) -> Iterator[Path]:
    """Context manager: yields a folder beside `out`, which then replaces it atomically."""
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.parent / f".{out.name}.{os.getpid()}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        os.replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
