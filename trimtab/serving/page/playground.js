// The page: who answers, the conversation, what is said of the answers. All of it lives in memory and is gone with the page.
import { ask, models, send } from "./asking.js";
import { armRow, costTitle, el, figures, icon, passages, probabilities, thumb, visible } from "./drawing.js";

const MOST = 6; // arms that answer at once
const at = (id) => document.getElementById(id);
const session = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("");
const histories = new Map(); // by model: the turns that it has answered in this conversation
let arms = [];
let running = null; // what stops the question that is being answered
let asked = 0;

const isTouched = () => matchMedia("(pointer: coarse)").matches;
const boxes = () => [...at("arms").querySelectorAll("input[type=checkbox]")];
const chosen = () => boxes().filter((box) => box.checked).map((box) => arms.find((model) => model.id === box.value));
const tell = (text) => at("told").append(el("p", {}, text));

async function start() {
  try {
    arms = await models();
  } catch (error) {
    at("trouble").textContent = `The arms could not be read: ${error.message}.`;
    return;
  }
  const [first] = arms;
  at("task").textContent = first.id.slice(0, -first.trimtab.arm.length - 1);
  at("study").textContent = [...new Set(arms.map((model) => model.trimtab.version))].join(", ");
  if (first.trimtab.kind === "classify") at("question-label").textContent = "Text to label";
  at("arms").querySelector("tbody").append(...arms.map((model, place) => armRow(model, place < MOST)));
  at("cost").textContent = costTitle(arms);
  at("arms").hidden = false;
  if (arms.length === 1) {
    at("title").textContent = "Ask, judge"; // there is nothing to compare
    for (const part of document.querySelectorAll(".several")) part.hidden = true;
  }
  if (!isTouched()) at("question").focus();
  if (arms.length > MOST) at("most").textContent = `No more than ${MOST} answer at once.`;
  limit();
}

/** No more boxes can be ticked than arms may answer. */
function limit() {
  const full = boxes().filter((box) => box.checked).length >= MOST;
  for (const box of boxes()) box.disabled = full && !box.checked;
}

/** The items in an order that nobody chose. */
function shuffled(items) {
  const drawn = items.map((item) => [crypto.getRandomValues(new Uint32Array(1))[0], item]);
  return drawn.sort(([one], [other]) => one - other).map(([, item]) => item);
}

async function submit() {
  await ready; // what is asked before the arms are known is asked once they are
  const text = at("question").value.trim();
  const answering = chosen();
  if (running || !text || !arms.length) return;
  if (!answering.length) {
    at("trouble").textContent = "Tick an arm that is to answer.";
    boxes()[0].focus();
    return;
  }
  at("trouble").textContent = "";
  at("told").replaceChildren();
  const turn = makeTurn(text, answering, at("blind").checked);
  at("turns").append(turn.element);
  turn.element.scrollIntoView({ block: "start" });
  at("question").value = "";
  fit();
  running = new AbortController();
  busy(true);
  tell(`Asked: ${text}`);
  await Promise.all(turn.answers.map((answer) => ask(answer, running.signal, () => draw(turn, answer))));
  running = null;
  busy(false);
  end(turn);
}

function busy(is) {
  const [shown, hidden] = is ? [at("stop"), at("send")] : [at("send"), at("stop")];
  const had = document.activeElement === hidden;
  shown.hidden = false;
  hidden.hidden = true;
  if (had) shown.focus();
  at("anew").disabled = is || !at("turns").childElementCount;
}

/** A question with the arms that are to answer it. Labels are chosen for one text at a time: there no turn follows another. */
function makeTurn(text, answering, blind) {
  asked += 1;
  const heading = el("h2", { id: `question-${asked}` }, text);
  const answers = (blind ? shuffled(answering) : answering).map((model, place) => {
    const before = model.trimtab.kind === "classify" ? [] : (histories.get(model.id) ?? []);
    return { model, place, messages: [...before, { role: "user", content: text }], state: "waiting", text: "" };
  });
  const turn = { blind, revealed: !blind, answers, number: asked, kept: el("p", { className: "kept", role: "status" }) };
  for (const answer of answers) answer.parts = card(turn, answer);
  const grid = el("div", { className: answers.length > 4 ? "answers many" : "answers" }, ...answers.map((answer) => answer.parts.card));
  turn.compare = el("div", { className: "compare", role: "group", "aria-label": "Compare", hidden: true });
  turn.element = el("section", { className: "turn", "aria-labelledby": heading.id }, heading, grid, el("div", { className: "verdict" }, turn.compare, turn.kept));
  return turn;
}

const letter = (answer) => String.fromCharCode(65 + answer.place);
const called = (turn, answer) => (turn.revealed ? answer.model.trimtab.arm : `Answer ${letter(answer)}`);

function card(turn, answer) {
  const id = `answer-${turn.number}-${answer.place}`;
  const parts = {
    name: el("h3", { id }),
    said: el("div", { className: "said", "aria-busy": "true" }),
    acts: el("div", { className: "acts", role: "group", "aria-labelledby": id }),
    facts: el("div", { className: "facts" }),
    read: el("div", { className: "read" }),
  };
  parts.card = el("article", { className: "answer", "aria-labelledby": id }, ...Object.values(parts));
  rename(turn, { ...answer, parts });
  return parts;
}

function rename(turn, { model, place, parts }) {
  const name = called(turn, { model, place });
  if (turn.revealed) parts.name.replaceChildren(icon(model.trimtab), name, ...(turn.blind ? [el("span", { className: "soft" }, ` was ${letter({ place })}`)] : []));
  else parts.name.replaceChildren(name);
}

/** An answer as far as it has come. Blind, none shows anything before all have ended: who is first would be known by it. */
function draw(turn, answer) {
  const ended = !["waiting", "writing"].includes(answer.state);
  if (turn.blind && !turn.done) return;
  const { said } = answer.parts;
  const text = visible(answer.text);
  said.firstChild?.nodeType === Node.TEXT_NODE ? (said.firstChild.data = text) : said.replaceChildren(text);
  if (!ended || answer.drawn) return;
  answer.drawn = true;
  said.setAttribute("aria-busy", "false");
  if (answer.state === "failed") said.append(el("p", { className: "no" }, `No answer: ${answer.why}.`));
  else if (answer.state === "stopped") said.append(el("p", { className: "note" }, "Stopped; no part of the conversation."));
  else if (!answer.text) said.append(el("p", { className: "note" }, "An empty answer."));
  if (answer.state === "whole" && answer.text) acts(turn, answer);
  if (turn.revealed) facts(answer);
  tell(`${called(turn, answer)}: ${answer.state === "whole" ? answer.text || "an empty answer" : answer.state}`);
}

/** What would tell an arm: how fast it was, what it costs, what it read. */
function facts({ parts, known, state, ...rest }) {
  if (state !== "whole") return;
  parts.facts.replaceChildren(figures(rest));
  const read = [];
  if (known?.probabilities) read.push(probabilities(known.probabilities));
  if (known?.passages.length) read.push(passages(known.passages));
  parts.read.replaceChildren(...read);
  for (const mark of parts.read.querySelectorAll("details[open]")) {
    const [text, first] = [mark.querySelector(".text"), mark.querySelector("mark")];
    if (first) text.scrollTop = first.offsetTop - text.offsetTop;
  }
}

/** All have answered, or were stopped. */
function end(turn) {
  turn.done = true;
  for (const answer of turn.answers) {
    draw(turn, answer);
    const { model, messages, state, text } = answer;
    if (state === "whole" && text) histories.set(model.id, [...messages, { role: "assistant", content: text }]);
  }
  compare(turn);
}

/** Controls to set one answer above the others; a thumb speaks of one answer alone, and is no such comparison. */
function compare(turn) {
  const whole = turn.answers.filter((answer) => answer.state === "whole" && answer.text);
  const same = new Set(whole.map((answer) => JSON.stringify(answer.messages))).size === 1;
  const pieces = [];
  if (whole.length > 1 && same) {
    const best = whole.length > 2 ? "best" : "better";
    const button = (name, place, said) => choice(name, () => judge(turn, "prefer", whole, { chosen: place }, said), turn.compare);
    for (const [place, answer] of whole.entries()) {
      const name = turn.revealed ? answer.model.trimtab.arm : letter(answer);
      pieces.push(button(`${name} is ${best}`, place, () => `${called(turn, answer)} is ${best}`));
    }
    pieces.push(button("Equally good", null, () => "equally good"));
  } else if (whole.length > 1) {
    pieces.push(el("span", { className: "note" }, "Not to be compared: the answers before these differ."));
  }
  if (!turn.revealed) pieces.push(el("button", { type: "button", onclick: () => reveal(turn) }, "Show names"));
  turn.compare.replaceChildren(...pieces);
  turn.compare.hidden = !pieces.length;
}

/** A button that stays pressed, among others that then are not, once what it does has worked. */
function choice(name, act, group, picture = null) {
  const button = el("button", { type: "button", "aria-pressed": "false" }, ...(picture ? [picture] : [name]));
  if (picture) Object.assign(button, { title: name, ariaLabel: name });
  button.addEventListener("click", async () => {
    if (!(await act())) return;
    for (const other of group.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(other === button));
  });
  return button;
}

function acts(turn, answer) {
  const { parts } = answer;
  const one = (kind, said) => () => judge(turn, kind, [answer], {}, () => `${called(turn, answer)} is ${said}`);
  const correct = el("button", { type: "button", "aria-expanded": "false", onclick: () => edit(turn, answer, correct) }, "Fix");
  const buttons = [
    choice("Good answer", one("like", "good"), parts.acts, thumb("like")),
    choice("Bad answer", one("dislike", "bad"), parts.acts, thumb("dislike")),
    correct,
  ];
  if (navigator.clipboard) buttons.push(el("button", { type: "button", onclick: (event) => copy(event.target, answer.text) }, "Copy"));
  parts.acts.replaceChildren(...buttons);
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

/** A copy of an answer to be put right: for closed sets one of the labels, else any text. */
function edit(turn, answer, opener) {
  const { parts, text } = answer;
  if (parts.editor) {
    parts.editor.elements[0].focus();
    return;
  }
  const id = `correct-${turn.number}-${answer.place}`;
  const { labels } = answer.model.trimtab;
  const field = labels
    ? el("select", { id }, ...labels.map((label) => el("option", { selected: label === text }, label)))
    : el("textarea", { id, value: text, rows: 3 });
  const close = () => {
    parts.editor.remove();
    parts.editor = null;
    opener.setAttribute("aria-expanded", "false");
    opener.focus();
  };
  const cancel = el("button", { type: "button", onclick: close }, "Cancel");
  parts.editor = el("form", { className: "editor" }, el("label", { for: id }, "What it should say"), field, el("div", { className: "line" }, el("button", { className: "first" }, "Keep"), cancel));
  parts.editor.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) parts.editor.requestSubmit();
  });
  parts.editor.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = () => `the correction of ${called(turn, answer)}`;
    if (await judge(turn, "correct", [answer], { correction: field.value }, said)) close();
  });
  parts.acts.append(parts.editor);
  opener.setAttribute("aria-expanded", "true");
  field.focus();
}

/** Hand a judgement to the server; whether it is kept. A comparison shows the names, since it is made. */
async function judge(turn, kind, answers, more, said) {
  const shown = ({ text, known }) => ({ receipt: known.receipts[0], text, passages: known.passages.map((one) => one.id) });
  const body = { kind, messages: answers[0].messages, answers: answers.map(shown), blind: !turn.revealed, session, ...more };
  try {
    await send("/feedback", body);
  } catch (error) {
    turn.kept.className = "kept no";
    turn.kept.textContent = `Not kept: ${error instanceof TypeError ? "the server cannot be reached" : error.message}.`;
    return false;
  }
  if (kind === "prefer") reveal(turn);
  turn.kept.className = "kept";
  turn.kept.textContent = `Kept: ${said()}.`;
  return true;
}

function reveal(turn) {
  if (turn.revealed) return;
  turn.revealed = true;
  for (const answer of turn.answers) {
    rename(turn, answer);
    facts(answer);
  }
  for (const button of turn.compare.querySelectorAll("button:not([aria-pressed])")) button.remove();
}

/** As high as what is written, up to a third of the window. */
function fit() {
  const field = at("question");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, innerHeight / 3)}px`;
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
at("question").addEventListener("input", fit);
at("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
  if (isTouched() && !event.ctrlKey) return; // no Shift there for a new line
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
at("stop").addEventListener("click", () => running?.abort());
at("anew").addEventListener("click", () => {
  histories.clear();
  at("turns").append(el("p", { className: "anew" }, "New conversation"));
  at("anew").disabled = true;
  at("question").focus();
});
at("arms").addEventListener("change", limit);
new ResizeObserver(() => document.documentElement.style.setProperty("--ask", `${at("ask").offsetHeight}px`)).observe(at("ask"));

const ready = start();
