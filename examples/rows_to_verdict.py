"""The whole way in one file: rows -> split -> four approaches answer the same questions -> scores -> comparisons ->
cost -> the verdict.

Run: trimtab pull smollm2-135m-q4 && python examples/rows_to_verdict.py
"""

import tempfile
import time
import tomllib
from pathlib import Path

from trimtab.decision import ArmResult, Task, Usage, cost_of, decide, evaluate_prompts, evidence_of, score_estimate
from trimtab.inference import Generation, LabelRequest, choose_labels
from trimtab.model import ChatEncoder, Example, Message, accelerate, attach, build_prompt, load_base, merged, resolve
from trimtab.training import (
    LoopSettings,
    SupervisedObjective,
    TrainingJob,
    answer_rows,
    assign_splits,
    train_linear,
    train_model,
)

# What a task file says: what to do, what is held out, what to compare.
TABLES = """
task.kind = "classify"
task.name = "remarks"
task.instruction = "A customer writes about a product. Is it praise or a complaint?"
data = { examples = ["made below"], split = { dev = 0.1, test = 0.5, seed = 0 } }
base.model = "smollm2-135m-q4"
target.margin = 0.05
study.arms = ["linear", "prompt", "few-shot", "lora"]
"""
TASK = Task(**tomllib.loads(TABLES))
PRODUCTS = """kettle lamp heater radio clock mixer fan toaster blender camera drill iron printer scale oven fridge sofa
desk bicycle helmet tent stove watch pen kite guitar drum rug ladder mower piano bucket tyre jacket boot scarf mug vase
broom torch"""
REMARKS = {
    "praise": ("works like a charm", "is a joy to use", "was worth every penny", "makes me smile", "looks gorgeous"),
    "complaint": ("broke at once", "came without a lid", "smells of burnt rubber", "is far too loud", "hurt my hand"),
}
LABELS = tuple(REMARKS)


def read_rows() -> list[Example]:
    """Return the rows. Remarks on one product share a `group`: the split keeps them on one side, so the test is on
    products never seen."""
    rows = []
    for place, product in enumerate(PRODUCTS.split()):
        for label, remarks in REMARKS.items():
            note = (Message(role="user", content=f"The {product} {remarks[place % 5]}."),)
            rows.append(Example(id=f"{product}-{label}", group=product, messages=note, references=(label,)))
    return rows


def main():
    """Return each approach's result, and the verdict."""
    ledger = Path(tempfile.mkdtemp()) / "splits.parquet"  # keeps each row's side, so that none ever moves
    rows, dev, test = assign_splits(read_rows(), (), TASK.data.split, ledger, "classify").values()
    base = accelerate(load_base(resolve(TASK.base.model), precision="fp32"))
    encoder = ChatEncoder(base.tokenizer)
    label_ids = [encoder.answer(label) for label in LABELS]
    pairs, dev_pairs = ([(row.input, row.references[0]) for row in part] for part in (rows, dev))
    began = time.perf_counter()
    linear, _ = train_linear(*zip(*pairs, strict=True), *zip(*dev_pairs, strict=True), None)
    linear_seconds = time.perf_counter() - began

    # Every approach is a function from prompts to answers; a label is scored by its probability, all of them at once.
    def ask_model(prompts):
        asked = [LabelRequest(id=prompt.id, ids=encoder.prompt(prompt.messages)) for prompt in prompts]
        return choose_labels(base, asked, LABELS, label_ids)

    def ask_linear(prompts):
        best = linear.probabilities([prompt.messages[-1].content for prompt in prompts], None).argmax(axis=1)
        return [Generation(id=prompt.id, text=linear.labels[at]) for prompt, at in zip(prompts, best, strict=True)]

    answers, usages, results = {}, {}, []

    def measure(arm, ask, shots=(), trained=0.0):
        prompts = [build_prompt(row, TASK.task.instruction, shots) for row in test]
        began = time.perf_counter()
        answers[arm] = evaluate_prompts(test, prompts, ask, TASK, split="test", seed=0, scorer=None)
        spent, began = time.perf_counter() - began, time.perf_counter()
        _ = [ask([prompt]) for prompt in prompts[:5]]  # cost: a year of 1,000 questions a month, asked one by one
        seconds = {"evaluation_seconds": spent, "seconds_per_question": (time.perf_counter() - began) / 5}
        own = {"runs_on_own_machine": True, "prompt_tokens": 0, "new_tokens": 0, "index_seconds": 0.0}
        usages[arm] = Usage(**seconds, **own, train_seconds=trained, trained=trained > 0, token_fee=None)
        score, cost = score_estimate(answers[arm], TASK), cost_of(usages[arm], TASK.cost)
        results.append(ArmResult(arm=arm, status="done", score=score, cost=cost))
        print(f"{arm:<9} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}], {cost.total:,.0f} {cost.currency}")

    measure("linear", ask_linear, trained=linear_seconds)
    measure("prompt", ask_model)
    measure("few-shot", ask_model, pairs[::9])
    # Fine-tuning: the same prompts, the loss on the answer alone; last, as it changes the weights.
    attach(base, "lora", seed=0, rank=8)
    taught = (
        encoder.conversation(build_prompt(row, TASK.task.instruction).messages, row.references[0]) for row in rows
    )
    objective = SupervisedObjective(answer_rows((encoded, 1.0) for encoded in taught), batch=8, seed=0)
    job = {"settings": LoopSettings(learning_rate=1e-3, epochs=4), "folder": ledger.with_name("run")}
    result = train_model(TrainingJob(base=base, objective=objective, **job))
    with merged(base.model):
        measure("lora", ask_model, trained=result.seconds)
    # Every test, the corrections for their number, and the rule: the same code that a study asks.
    study = evidence_of(results, answers, TASK.arms, TASK, usages)
    verdict = decide(study)
    for pair in study.comparisons:
        print(f"{pair.a} - {pair.b}: {pair.difference:+.3f} [{pair.low:+.3f}, {pair.high:+.3f}], p {pair.p_holm:.4f}")
    print(verdict.sentence)
    return results, verdict


if __name__ == "__main__":
    main()
