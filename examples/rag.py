"""Retrieval from below, in one file: documents -> index -> passages -> an answer with its source; then a fact changes, and the answer with it.

Run: trimtab pull smollm2-135m-q4 minilm-l6 && python examples/rag.py
"""

import tempfile
from pathlib import Path

from trimtab.answering.engine import Engine, Request, generate_texts
from trimtab.base.files import sha256_text
from trimtab.base.records import Document, Example, Message
from trimtab.data.markdown import parse_markdown
from trimtab.data.prompts import ChatEncoder, compose
from trimtab.model.catalog import resolve
from trimtab.model.load import load_base
from trimtab.retrieval.embed import Embedder
from trimtab.retrieval.index import Index
from trimtab.retrieval.search import search

INSTRUCTION = "Answer the question from the passages in a few words."
HANDBOOK = {
    "travel.md": "# Travel\n\n## Hotels\nA hotel may cost up to 120 euros a night.\n\n## Trains\nBook second class.",
    "leave.md": "# Leave\n\n## Annual leave\nEverybody has 28 days of leave a year.\n\n## Illness\nCall before nine o'clock.",
    "doors.md": "# Doors\n\n## Badges\nLost badges are replaced at the front desk in building C.",
}
QUESTIONS = ("How much may a hotel cost a night?", "How many days of leave do I have?", "Where do I get a new badge?")


def read(files: dict[str, str]) -> list[Document]:
    documents = []
    for name, text in files.items():
        title, sections = parse_markdown(text, name)
        documents.append(Document(id=name, title=title, source=name, sections=sections, digest=sha256_text(text)))
    return documents


def main() -> list[tuple[str, str, str]]:
    base = load_base(resolve("smollm2-135m-q4"), precision="fp32")
    encoder = ChatEncoder(base.tokenizer)
    engine = Engine(base, encoder.stop_ids)

    def ask(index: Index, questions) -> list[tuple[str, str, str]]:
        """Question, answer, and the source of the first passage, for each question."""
        found = search(index, questions, k=2)
        requests = []
        for number, (question, hits) in enumerate(zip(questions, found, strict=True)):
            asked = Example(id=str(number), messages=(Message(role="user", content=question),), references=())
            prompt = compose(asked, INSTRUCTION, hits=hits)
            requests.append(Request(id=prompt.id, ids=encoder.prompt(prompt.messages), max_new=24))
        said = generate_texts(engine, base.tokenizer, requests)
        return [
            (q, item.text.strip(), hits[0].passage.id) for q, item, hits in zip(questions, said, found, strict=True)
        ]

    with tempfile.TemporaryDirectory() as folder:
        index = Index.open(Path(folder), Embedder(resolve("minilm-l6")))
        print(index.update(read(HANDBOOK)))
        answers = ask(index, QUESTIONS)

        # A fact is edited: only the changed document is embedded again, and the next answer knows it.
        edited = {**HANDBOOK, "travel.md": HANDBOOK["travel.md"].replace("120", "95")}
        print(index.update(read(edited)))
        answers += ask(index, QUESTIONS[:1])
    for question, answer, source in answers:
        print(f"{question}\n  {answer}  [{source}]")
    return answers


if __name__ == "__main__":
    main()
