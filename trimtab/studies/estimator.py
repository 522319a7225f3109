"""scikit-learn estimator of an arm as measured, already fitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

from trimtab.arms.answerers import ReadyArm, ready_arm
from trimtab.arms.contexts import context_for
from trimtab.arms.session import BATCH_ITEMS, Session
from trimtab.arms.store import SavedArm, find_saved, measured_precision, require_weights, with_measured_rows
from trimtab.arms.workspace import FOLDER, open_for_answering
from trimtab.base.errors import InputError
from trimtab.base.records import Arm, Example, Generation, Message
from trimtab.base.task import Task
from trimtab.studies.consent import require_consent


class ArmEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A fitted estimator of an arm: takes texts and predicts labels or, for other kinds of task, answers.

    As with scikit-learn's FrozenEstimator, `fit` trains nothing and a clone is the estimator itself, so that a
    pipeline, `cross_val_score` and `CalibratedClassifierCV` use the arm as measured. Its models are loaded once,
    when first needed. Single-threaded; a copy in another process loads them again.
    """

    def __init__(self, task: Task, arm: Arm, study: str, allow: Sequence[str] = ()) -> None:
        self.task, self.arm, self.study, self.allow = task, arm, study, allow

    def fit(self, X: Iterable[str], y: Iterable[str] | None = None) -> ArmEstimator:
        """Train nothing. Raises InputError for a label that the arm does not know."""
        del X
        if y is not None and self.task.task.kind == "classify":
            known = set(self.classes_.tolist())
            strange = next((label for label in y if label not in known), None)
            if strange is not None:
                problem = f"the label {strange!r} is none of those that {self.arm.name} was measured on"
                shown = ", ".join(sorted(known)[:10])
                raise InputError(problem, f"they are text: {shown}{' …' * (len(known) > 10)}", field="y")
        return self

    def predict(self, X: Iterable[str]) -> NDArray[Any]:
        """Return the label or answer of each text, as measured. Raises InputError for values that are no text or too
        long.
        """
        return np.array([one.text for one in self._answers(X)])

    def predict_proba(self, X: Iterable[str]) -> NDArray[np.float64]:
        """Return the probability of each label, [N, C] in the order of `classes_`, calibrated as measured; `predict`
        gives the most probable one.

        Raises InputError for an arm without probabilities: generated answers, and endpoints that only generate.
        """
        if self.task.task.kind != "classify":
            raise self._no_probabilities()
        rows = []
        for one in self._answers(X):
            if not one.probabilities:
                raise self._no_probabilities()
            rows.append([one.probabilities[label] for label in self.classes_.tolist()])
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.classes_))

    @property
    def classes_(self) -> NDArray[Any]:
        """Return the sorted labels. Raises AttributeError for a task of another kind."""
        if self.task.task.kind != "classify":
            raise AttributeError("there are labels for tasks of kind classify only")
        return np.unique(np.array(self._session.workspace.labels))

    def close(self) -> None:
        """Free the memory of the models; they are loaded again when needed."""
        for name in ("_loaded_session", "_loaded_ready"):
            self.__dict__.pop(name, None)
        if stack := self.__dict__.pop("_stack", None):
            stack.close()

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return f"{self.arm.name} of study {self.study}, as measured"

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> ArmEstimator:
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.requires_fit = True, False, False
        if self.task.task.kind != "classify":
            tags.estimator_type = None
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("task", "arm", "study", "allow")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def _saved(self) -> SavedArm | None:
        return require_weights(find_saved(self.task, self.arm, self.study), self.arm, self.task)

    @property
    def _session(self) -> Session:
        if "_loaded_session" not in self.__dict__:
            require_consent(self.task, [self.arm.endpoint] if self.arm.endpoint else [], allow=self.allow, scores=False)
            saved = self._saved
            workspace = open_for_answering(with_measured_rows(self.task, saved), rows=bool(self.task.data.examples))
            self._loaded_session = Session(workspace, measured_precision(saved, self.task))
        return self._loaded_session

    @property
    def _ready(self) -> ReadyArm:
        if "_loaded_ready" not in self.__dict__:
            saved, self._stack = self._saved, ExitStack()
            context = context_for(self.arm, saved.chosen if saved else None)
            place = saved.folder if saved else self.task.folder / FOLDER
            self._loaded_ready = self._stack.enter_context(ready_arm(self._session, self.arm, context, place))
        return self._loaded_ready

    def _answers(self, X: Iterable[str]) -> Iterator[Generation]:
        builder = self._ready.builder
        asked = [
            Example(id=str(n), messages=(Message(role="user", content=text),), references=())
            for n, text in enumerate(_texts(X))
        ]
        for some in (asked[start : start + BATCH_ITEMS] for start in range(0, len(asked), BATCH_ITEMS)):
            for one in some:
                builder.require_room(one, self._session.max_answer_tokens)
            yield from self._ready.answer_batch(builder.prompts(some))
            self._session.retriever.forget_hits()

    def _no_probabilities(self) -> InputError:
        return InputError(f"{self.arm.name} gives no probabilities", "ask it with predict", field="predict_proba")


def _texts(X: Iterable[str]) -> list[str]:
    """Return the texts of a list, an array, a Series or a one-column table."""
    if isinstance(X, str):
        raise InputError("one text, where several are asked for", "put it into a list", field="X")
    table = np.asarray(X, dtype=object)
    if table.ndim == 2 and table.shape[1] == 1:
        table = table[:, 0]
    if table.ndim != 1 or not all(isinstance(text, str) and text.strip() for text in table):
        raise InputError("not a list of texts", "give one text for each question, none of them empty", field="X")
    return list(table)
