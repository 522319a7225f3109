"""Ask llama.cpp itself about a GGUF file: its own tokenizer, chat template, kernels and cache."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from trimtab.base.errors import InputError, PackageError, RemoteError
from trimtab.base.worker import Worker
from trimtab.exports.readers import AGAIN, LIKELIEST, ExportReader, ReadAnswer, Turns

_WORKER = Path(__file__).with_name("llama_cpp_worker.py")
_SECONDS = 600.0  # for loading a file, and for one answer
_LONGEST = 1 << 26  # bytes of a reply
_FORCED = 1e6  # added to the logit of a token that must come next


class LlamaCppReader(ExportReader):
    """llama.cpp's server, from the package xllamacpp, in a process of its own until `close`."""

    def __init__(self, file: Path, tokens: int) -> None:
        """Load the file with a context of `tokens`. Raises InputError if llama.cpp cannot read it, PackageError
        without xllamacpp.
        """
        if not has_llama_cpp():
            raise PackageError("xllamacpp", "gguf", "asking a GGUF file through llama.cpp")
        self.name = f"llama.cpp (xllamacpp {version('xllamacpp')})"
        settings = {"file": str(file.resolve()), "tokens": tokens, "threads": torch.get_num_threads()}
        self._worker = Worker(
            *(_WORKER, ()), seconds=_SECONDS, longest=_LONGEST, first=json.dumps(settings), start_seconds=_SECONDS
        )
        answer = self._answer("/tokenize", {"content": ""})
        if answer is None or answer["status"] != 200:
            self.close()
            cause = f": {str(answer['reply'])[:200].rstrip('.')}" if answer else ""
            raise InputError(f"{self.name} cannot load it{cause}", AGAIN, file=file)

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def prompt(self, turns: Turns) -> tuple[int, ...]:
        """Encode turns by the file's own template and tokenizer, as for a chat."""
        text = self._post("/apply-template", {"messages": [dict(turn) for turn in turns]})["prompt"]
        tokens = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        return tuple(tokens)

    def generate(self, ids: Sequence[int], most: int, stops: Sequence[int]) -> ReadAnswer:
        """Answer greedily; where an answer ends, the file says."""
        del stops
        reply = self._complete(ids, most, n_probs=LIKELIEST)
        steps = _steps_of(reply["tokens"], reply["completion_probabilities"])
        return ReadAnswer(text=reply["content"].strip(), ids=tuple(reply["tokens"]), log_probabilities=tuple(steps))

    def label_log_probabilities(self, ids: Sequence[int], labels: Sequence[Sequence[int]]) -> list[float]:
        """Return each label's sum. What labels begin with alike is computed once, and read from llama.cpp's cache."""
        known: dict[tuple[int, ...], float] = {(): 0.0}
        for label in sorted(map(tuple, labels)):
            for end, token in enumerate(label, 1):
                if label[:end] not in known:
                    before = label[: end - 1]
                    known[label[:end]] = known[before] + self._log_probability([*ids, *before], token)
        return [known[tuple(label)] for label in labels]

    def _log_probability(self, ids: Sequence[int], token: int) -> float:
        """Return the log-probability of a next token, which llama.cpp tells of every token that it chose."""
        reply = self._complete(ids, 1, n_probs=1, logit_bias=[[token, _FORCED]])
        (step,) = reply["completion_probabilities"]
        if step["id"] != token:
            raise RemoteError(f"{self.name} chose token {step['id']} where {token} was forced; {AGAIN}")
        return float(step["logprob"])

    def _complete(self, ids: Sequence[int], most: int, **more: Any) -> Any:
        body = {"prompt": list(ids), "n_predict": most, "temperature": 0, "return_tokens": True, **more}
        return self._post("/completion", body)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        answer = self._answer(path, body)
        if answer is None:
            raise RemoteError(f"{self.name} ended, or took over {_SECONDS:.0f} s for one answer; {AGAIN}")
        if answer["status"] != 200:
            raise RemoteError(f"{self.name} refused {path}: {str(answer['reply'])[:200]}; {AGAIN}")
        return answer["reply"]

    def _answer(self, path: str, body: Mapping[str, Any]) -> Any | None:
        return self._worker.ask(json.dumps({"path": path, "body": body}))


def _steps_of(tokens: Sequence[int], reported: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[int, float]]:
    """Yield the log-probabilities at each token; none for a token that ends within a character, as the server leaves
    these out.
    """
    rest = list(reversed(reported))
    for token in tokens:
        step = rest.pop() if rest and rest[-1]["id"] == token else {"top_logprobs": []}
        yield {top["id"]: top["logprob"] for top in step["top_logprobs"]}


def has_llama_cpp() -> bool:
    """True if xllamacpp is installed."""
    return importlib.util.find_spec("xllamacpp") is not None
