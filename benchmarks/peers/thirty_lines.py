"""Baselines of about thirty lines each for `public_tasks.py`, with scikit-learn, NumPy and sentence embeddings by
transformers; no code of the product.

    python benchmarks/peers/thirty_lines.py ROWS.json > ANSWERS.json

ROWS has the keys `kind` (classify, answer, json, text), `embedding` (a model's folder), `train` and `test` (each a list
of {"columns": [text, …], "answer": text}) and `sentences` of documents. Prints the answers of each baseline to `test`.
"""

import json
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from transformers import AutoModel, AutoTokenizer


def embedder(folder):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def embed(texts):
        parts = []
        for start in range(0, len(texts), 64):
            some = texts[start : start + 64]
            batch = tokenizer(some, padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
            parts.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
        return normalize(np.vstack(parts))

    return embed


def most_frequent(train, test):
    return [Counter(row["answer"] for row in train).most_common(1)[0][0]] * len(test)


def nearest_words(train, test):
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    known = words.fit_transform(joined(train))
    return [train[at]["answer"] for at in (words.transform(joined(test)) @ known.T).toarray().argmax(1)]


def nearest_embedding(train, test, embed):
    return [train[at]["answer"] for at in (embed(joined(test)) @ embed(joined(train)).T).argmax(1)]


def logistic(train, test, kind="word"):
    settings = {"ngram_range": (1, 2)} if kind == "word" else {"analyzer": "char_wb", "ngram_range": (2, 5)}
    words = TfidfVectorizer(sublinear_tf=True, **settings)
    known = words.fit_transform(joined(train))
    model = LogisticRegression(C=10, max_iter=1000).fit(known, [row["answer"] for row in train])
    return list(model.predict(words.transform(joined(test))))


def logistic_embedding(train, test, embed):
    model = LogisticRegression(C=10, max_iter=1000).fit(embed(joined(train)), [row["answer"] for row in train])
    return list(model.predict(embed(joined(test))))


def logistic_pairs(train, test, embed):
    """Each column has words of its own, and each pair of columns its similarity by words and by embedding."""
    count = len(train[0]["columns"])
    words = [TfidfVectorizer(sublinear_tf=True).fit([row["columns"][at] for row in train]) for at in range(count)]
    common = TfidfVectorizer().fit([text for row in train for text in row["columns"]])

    def features(rows):
        columns = [[row["columns"][at] for row in rows] for at in range(count)]
        blocks = [words[at].transform(columns[at]) for at in range(count)]
        vectors, shared = [embed(column) for column in columns], [common.transform(column) for column in columns]
        for one, other in combinations(range(count), 2):
            blocks.append(sp.csr_matrix((vectors[one] * vectors[other]).sum(1)[:, None]))
            blocks.append(sp.csr_matrix(shared[one].multiply(shared[other]).sum(1)))
        return sp.hstack([*blocks, sp.csr_matrix(vectors[-1])]).tocsr()

    model = LogisticRegression(C=10, max_iter=1000).fit(features(train), [row["answer"] for row in train])
    return list(model.predict(features(test)))


def best_sentence(documents, test):
    """The sentence with the highest BM25 score."""
    split = [re.findall(r"\w+", text.lower()) for text in documents]
    mean = np.mean([len(words) for words in split])
    found, idf = defaultdict(list), {}
    for at, words in enumerate(split):
        for word, count in Counter(words).items():
            found[word].append((at, count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(words) / mean))))
    for word, places in found.items():
        idf[word] = np.log(1 + (len(split) - len(places) + 0.5) / (len(places) + 0.5))
    answers = []
    for row in test:
        scores = np.zeros(len(split))
        for word in set(re.findall(r"\w+", row["columns"][0].lower())):
            for at, weight in found.get(word, ()):
                scores[at] += idf[word] * weight
        answers.append(documents[int(scores.argmax())])
    return answers


def slot_dictionary(train, test, embed):
    """The intent of the nearest request, and every value known for its slots that the request holds."""
    known = defaultdict(lambda: defaultdict(set))
    for row in train:
        answer = json.loads(row["answer"])
        for slot, value in answer["slots"].items():
            known[answer["intent"]][slot].add(value.lower())
    answers = []
    for row, nearest in zip(test, nearest_embedding(train, test, embed), strict=True):
        intent, text = json.loads(nearest)["intent"], f" {row['columns'][0].lower()} "
        held = {slot: [value for value in values if f" {value} " in text] for slot, values in known[intent].items()}
        slots = {slot: max(values, key=len) for slot, values in held.items() if values}
        answers.append(json.dumps({"intent": intent, "slots": slots}))
    return answers


def joined(rows):
    return ["\n\n".join(row["columns"]) for row in rows]


def main():
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    train, test, embed = given["train"], given["test"], embedder(given["embedding"])
    found = {
        "most frequent": most_frequent(train, test),
        "nearest by words": nearest_words(train, test),
        "nearest by MiniLM": nearest_embedding(train, test, embed),
    }
    if given["kind"] == "classify":
        found["logistic regression, words"] = logistic(train, test)
        found["logistic regression, letters"] = logistic(train, test, "letters")
        found["logistic regression, MiniLM"] = logistic_embedding(train, test, embed)
        if len(train[0]["columns"]) > 1:
            found["logistic regression, pairs of columns"] = logistic_pairs(train, test, embed)
    if given["kind"] == "answer" and given["sentences"]:
        found["BM25 sentence"] = best_sentence(given["sentences"], test)
    if given["kind"] == "json":
        found["slot dictionary"] = slot_dictionary(train, test, embed)
    json.dump({name: [str(answer) for answer in answers] for name, answers in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
