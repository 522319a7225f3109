"""Retrieval from below, in one file: documents -> sentences -> the one that answers, with its source -> the words of it
that a language model quotes; then a fact changes.

Run: trimtab pull smollm2-135m-q4 minilm-l6 && python examples/rag.py
"""

import tempfile
from pathlib import Path

from trimtab.inference import Engine, QuoteConstraint, Request, generate_texts
from trimtab.model import ChatEncoder, Example, Message, accelerate, build_prompt, load_base, resolve
from trimtab.retrieval import Embedder, Extractor, Index, read_below

INSTRUCTION = "Answer the question from the passages in a few words."
UNKNOWN, THRESHOLD = "I don't know", 0.15  # below this probability no sentence is an answer
HANDBOOK = {
    "travel.md": "# Travel\n\n## Hotels\nA hotel may cost up to 120 euros a night.\n\n## Trains\nBook second class.",
    "leave.md": "# Leave\n\n## Annual leave\nEverybody has 28 days of leave a year.\n\n## Illness\nCall before nine.",
    "doors.md": "# Doors\n\n## Badges\nLost badges are replaced at the front desk in building C.",
}
QUESTIONS = (
    "How much may a hotel cost a night?",
    "How many days of leave do I have?",
    "Where are lost badges replaced?",
    "Who waters the plants?",  # not in these documents
)


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

    with tempfile.TemporaryDirectory() as place:
        handbook = Path(place) / "handbook"
        handbook.mkdir()
        for name, text in HANDBOOK.items():
            (handbook / name).write_text(text, encoding="utf-8")
        # The extractor judges sentences, so each passage is one.
        index = Index.open(Path(place) / "index", Embedder(resolve("minilm-l6")), words=1)
        extractor = Extractor(index)
        documents, _ = read_below(handbook)
        print(index.update(documents))
        answers = ask(extractor, QUESTIONS)

        # A fact is edited: only the changed document is embedded again, and the next answer knows it.
        (handbook / "travel.md").write_text(HANDBOOK["travel.md"].replace("120", "95"), encoding="utf-8")
        documents, _ = read_below(handbook)
        print(index.update(documents))
        answers += ask(extractor, QUESTIONS[:1])
    for question, sentence, source, quoted in answers:
        print(f"{question}\n  {sentence}" + (f"  [{source}]\n  the model quotes: {quoted}" if source else ""))
    return answers


if __name__ == "__main__":
    main()
