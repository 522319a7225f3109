"""Retrieval from below, in one file: documents -> sentences -> the one that answers, with its source -> the words of it
that a language model quotes; then a fact changes.

Run: trimtab pull smollm2-135m-q4 minilm-l6 && python examples/rag.py
"""

import tempfile
from pathlib import Path

from trimtab.base.files import sha256_text
from trimtab.base.grammar import SENTENCE
from trimtab.base.records import Document, Example, Message
from trimtab.data.markdown import parse_markdown
from trimtab.data.prompts import ChatEncoder, build_prompt
from trimtab.inference.engine import Engine, Request, generate_texts
from trimtab.inference.quote import QuoteConstraint
from trimtab.model.catalog import resolve
from trimtab.model.fast.patch import accelerate
from trimtab.model.load import load_base
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.extract import Extractor
from trimtab.retrieval.index import Index

INSTRUCTION = "Answer the question from the passages in a few words."
UNKNOWN, THRESHOLD = "I don't know", 0.15  # below this probability no sentence is an answer
HANDBOOK = {
    "travel.md": "# Travel\n\n## Hotels\nA hotel may cost up to 120 euros a night.\n\n## Trains\nBook second class.",
    "leave.md": "# Leave\n\n## Annual leave\nEverybody has 28 days of leave a year.\n\n## Illness\nCall before nine o'clock.",
    "doors.md": "# Doors\n\n## Badges\nLost badges are replaced at the front desk in building C.",
}
QUESTIONS = (
    "How much may a hotel cost a night?",
    "How many days of leave do I have?",
    "Where are lost badges replaced?",
    "Who waters the plants?",  # not in these documents
)


def read(files: dict[str, str]) -> list[Document]:
    documents = []
    for name, text in files.items():
        title, sections = parse_markdown(text, name)
        documents.append(Document(id=name, title=title, source=name, sections=sections, digest=sha256_text(text)))
    return documents


def main() -> list[tuple[str, str, str, str]]:
    """Return for each question the sentence that answers it, the source, and the words of it that the model quotes."""
    base = accelerate(load_base(resolve("smollm2-135m-q4"), precision="fp32"))
    encoder = ChatEncoder(base.tokenizer)
    engine = Engine(base, encoder.stop_ids)

    def quote(question: str, hits) -> str:
        asked = Example(id="0", messages=(Message(role="user", content=question),), references=())
        prompt = build_prompt(asked, INSTRUCTION, hits=hits)
        span = QuoteConstraint(texts=tuple(hit.passage.text for hit in hits))  # a small model left free invents
        request = Request(id=prompt.id, ids=encoder.prompt(prompt.messages), max_new=32, constraint=span)
        return generate_texts(engine, base.tokenizer, [request])[0].text.strip()

    def ask(extractor: Extractor, questions) -> list[tuple[str, str, str, str]]:
        answers = []
        for question, hits in zip(questions, extractor.best(questions, k=1), strict=True):
            if hits and hits[0].score >= THRESHOLD:
                found = hits[0].passage
                answers.append((question, found.text, found.id, quote(question, hits)))
            else:  # the model is not asked: it would answer all the same
                answers.append((question, UNKNOWN, "", ""))
        return answers

    with tempfile.TemporaryDirectory() as folder:
        index = Index.open(Path(folder), Embedder(resolve("minilm-l6")), words=SENTENCE)
        extractor = Extractor(index)
        print(index.update(read(HANDBOOK)))
        answers = ask(extractor, QUESTIONS)

        # A fact is edited: only the changed document is embedded again, and the next answer knows it.
        edited = {**HANDBOOK, "travel.md": HANDBOOK["travel.md"].replace("120", "95")}
        print(index.update(read(edited)))
        answers += ask(extractor, QUESTIONS[:1])
    for question, sentence, source, quoted in answers:
        print(f"{question}\n  {sentence}" + (f"  [{source}]\n  the model quotes: {quoted}" if source else ""))
    return answers


if __name__ == "__main__":
    main()
