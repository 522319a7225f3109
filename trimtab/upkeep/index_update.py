"""An update of the index alone: production's arm with its own weights and settings, and the documents of today."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from trimtab.arms.answerers import ready_arm
from trimtab.arms.bundle import RUN, BundledArm, open_bundle, write_bundle
from trimtab.arms.contexts import context_for
from trimtab.arms.fingerprint import fingerprint_rows
from trimtab.arms.known_rows import ROWS_FILE
from trimtab.arms.session import Session
from trimtab.arms.store import ANSWERS, StoredQuestion
from trimtab.arms.workspace import Workspace
from trimtab.base.errors import InputError
from trimtab.base.grammar import SENTENCE, is_trained, shots_of
from trimtab.base.records import Answer, Arm, Example, Passage
from trimtab.base.results import ArmResult
from trimtab.measurement.evaluate import save_answers
from trimtab.upkeep.register import digest_of_files
from trimtab.upkeep.versions import Version, VersionScore

SENTENCES = 20  # looked through for the one that held a right answer
VERIFIED = 20  # answers of a written version that are compared with those it was measured by
MOST_ASKED = 1_000  # rows besides the test questions


def reads_documents_alone(arm: Arm) -> bool:
    """True if other documents reach an arm by its index: it retrieves, and no document was trained on."""
    return arm.retrieves and "docs" not in arm.stages


def learns_no_row(arm: Arm) -> bool:
    """True if an arm neither trained on rows nor shows any, so that every row is a fair question to its index."""
    return not is_trained(arm) and shots_of(arm) is None


def former_passages(bundled: BundledArm, rows: Sequence[Example]) -> list[list[Passage]]:
    """Return the passages that a version's index finds for each row, best first."""
    retriever, context = bundled.session.retriever, context_for(bundled.arm, bundled.saved.chosen)
    if context.words == SENTENCE:
        found = retriever.extract_sentences(rows, SENTENCES)
    else:
        found = retriever.hits(rows, chunk_words=context.words, vector_weight=context.vector_weight)
    return [[hit.passage for hit in hits] for hits in found]


def updated_session(bundled: BundledArm, workspace: Workspace, home: Path) -> Session:
    """Return the session of a version with the documents of `workspace`; its index is updated in the folder `home`,
    where only texts that are new are embedded."""
    context = context_for(bundled.arm, bundled.saved.chosen)
    own, place = bundled.session, home / bundled.session.retriever.index_folder(context.words).name
    if not place.is_dir():
        place.mkdir(parents=True)
        own.retriever.index_of(context.words).copy_to(place)
    session = Session(replace(own.workspace, documents=workspace.documents, folder=home), own.precision, base=own._base)
    session.shots = own.shots
    return session


def write_updated(
    bundled: BundledArm, session: Session, measured: ArmResult, answers: Sequence[Answer], former: Path, folder: Path
) -> None:
    """Write the bundle of an updated version, with the rows that it was made from and its answers, and ask it again.

    `former`: the files of the version that it follows. Raises InputError where it does not answer as it was measured.
    """
    arm, context = bundled.arm, context_for(bundled.arm, bundled.saved.chosen)
    saved = replace(bundled.saved, result=measured)
    given = {answer.item_id: answer.answer for answer in answers}
    asked = [row for row in session.workspace.splits["test"] if row.id in given]
    stored = [StoredQuestion(messages=row.messages, answer=given[row.id]) for row in asked[:VERIFIED]]
    folder.mkdir(parents=True)
    with ready_arm(session, arm, context, bundled.saved.folder) as ready:
        write_bundle(session, arm, context, ready.builder, folder, saved=saved, stored=stored)
    if (former / ROWS_FILE).is_file():
        shutil.copyfile(former / ROWS_FILE, folder / ROWS_FILE)
    save_answers(folder / ANSWERS, answers)
    again = open_bundle(folder, near=session.task.folder, base=session._base)
    with ready_arm(again.session, arm, context, folder / RUN) as ready:
        replies = ready.answer_batch(ready.builder.prompts(asked[:VERIFIED]))
    differing = sum(reply.text != question.answer for reply, question in zip(replies, stored, strict=True))
    if differing:
        raise InputError(
            f"{differing} of {len(stored)} answers of the written version differ from those it was measured by",
            f"begin anew with: {session.task.command('refresh')}",
            field="arm",
        )


def updated_version(
    production: Version,
    workspace: Workspace,
    folder: Path,
    score: VersionScore | None,
    outdated: Sequence[str],
    by: str,
) -> Version:
    """Return the record of an updated version, whose files stand in a folder: production's, with other documents."""
    return replace(
        production,
        number=None,
        parent=production.number,
        created=datetime.now(UTC),
        by=by,
        index_sha256=digest_of_files(folder, sorted(folder.glob("index*/**/*"))),
        documents_sha256=fingerprint_rows(workspace)["documents"],
        score=score,
        verdict=None,  # it was said of other documents
        flips=(),
        outdated=tuple(outdated),
    )
