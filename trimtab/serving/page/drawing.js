// Makes the pieces of the page. What models and documents say becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";
const MARKS = { // as in the report: colour says how the weights were made, shape what the model sees
  circle: "M8 3A5 5 0 1 1 8 13A5 5 0 1 1 8 3Z",
  square: "M3.5 3.5H12.5V12.5H3.5Z",
  diamond: "M8 1.5L14.5 8L8 14.5L1.5 8Z",
  triangle: "M8 2L14 13H2Z",
};
const SIGNS = {
  like: "M5 7.2L7.6 2.2C8.9 2.2 9.4 3.1 9.2 4.2L8.8 6.4H12.4C13.4 6.4 14 7.2 13.8 8.1L12.8 12.3C12.6 13.1 12 13.6 11.2 13.6H5M5 7.2V13.6M5 7.2H2.2V13.6H5",
};

/** Text with every direction mark as an escape, as in the report: such a mark makes what follows read as other text. */
export const visible = (text) =>
  text.replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** An element with properties, and children that are nodes or text. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  const given = children.filter((child) => child !== null && child !== undefined);
  made.append(...given.map((child) => (typeof child === "string" ? visible(child) : child)));
  return made;
}

function drawn(path, kind) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, value] of [["viewBox", "0 0 16 16"], ["class", kind], ["aria-hidden", "true"]]) svg.setAttribute(name, value);
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

/** An arm's mark. */
export const icon = ({ family, shape }) => drawn(MARKS[shape] ?? MARKS.circle, `icon ${family}`);

/** A thumb, up or down. */
export const thumb = (kind) => drawn(SIGNS.like, `sign ${kind}`);

/** A duration in the unit that reads best. */
export function duration(seconds) {
  if (seconds < 0.01) return `${Number((seconds * 1000).toPrecision(2))} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 120 ? `${seconds.toFixed(1)} s` : `${(seconds / 60).toFixed(1)} min`;
}

/** Whether a cost is in machine time, as no price was given. */
const isTime = (cost) => cost.currency.includes("second");

/** What a question costs, everything up front and later spread over all of them. */
function price(cost) {
  return isTime(cost) ? duration(cost.per_question) : `${Number(cost.per_question.toPrecision(2))} ${cost.currency}`;
}

const figure = (value) => value.toFixed(3);

/** What stands over the costs of arms. */
export function costTitle(arms) {
  const costs = arms.map((model) => model.trimtab.measured.cost).filter(Boolean);
  return costs.length && costs.every(isTime) ? "Machine time a question" : "Cost a question";
}

/** An arm's row in the table of those that may answer. */
export function armRow(model, ticked) {
  const { arm, measured } = model.trimtab;
  const box = el("input", { type: "checkbox", checked: ticked, value: model.id });
  const { score } = measured;
  const known = score ? [el("b", {}, figure(score.value)), el("span", { className: "soft interval" }, ` [${figure(score.low)}–${figure(score.high)}]`)] : ["not measured"];
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, el("label", { className: "tick" }, box, icon(model.trimtab), el("span", {}, arm))),
    el("td", { className: "number" }, ...known),
    el("td", { className: "number speed" }, measured.latency_p50_ms ? duration(measured.latency_p50_ms / 1000) : "–"),
    el("td", { className: "number" }, measured.cost ? price(measured.cost) : "–"),
  );
}

/** What was measured of an answer in this page, and what it costs, as pairs. */
export function figures(answer) {
  const pairs = [];
  const rate = (answer.tokens - 1) / (answer.last - answer.first); // the first token is there when the time begins
  if (answer.pieces > 1) pairs.push(["First text", duration(answer.first)]);
  pairs.push(["In all", duration(answer.seconds)]);
  if (answer.pieces > 1 && Number.isFinite(rate)) pairs.push(["Speed", `${rate.toFixed(rate < 10 ? 1 : 0)} tokens/s`]);
  if (answer.tokens) pairs.push(["Length", `${answer.tokens} tokens${answer.cut ? ", cut" : ""}`]);
  const { cost } = answer.model.trimtab.measured;
  if (cost) pairs.push(["Cost", isTime(cost) ? `${price(cost)} machine time` : price(cost)]);
  return el("dl", { className: "figures" }, ...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** The labels that were thought of, the likeliest first. */
export function probabilities(found) {
  const sorted = Object.entries(found).sort((one, other) => other[1] - one[1]).slice(0, 5);
  const row = ([label, share]) => {
    const bar = el("span", { className: "bar", "aria-hidden": "true" }, el("span"));
    bar.firstChild.style.width = `${100 * share}%`;
    return el("li", {}, el("span", { className: "label" }, label), bar, el("span", { className: "share" }, `${(100 * share).toFixed(1)}%`));
  };
  return el("ul", { className: "labels", "aria-label": "Probabilities of the labels" }, ...sorted.map(row));
}

/** The passages that stood before the model: those that support the answer open, with the sentences that do. */
export function passages(found) {
  const used = found.filter((one) => one.cited).length;
  const said = `${found.length} passage${found.length === 1 ? "" : "s"} read, ${used || "none"} used`;
  return el("div", { className: "passages" }, el("p", { className: "note" }, said), ...found.map(passage));
}

function passage(one) {
  const text = el("div", { className: "text" }, ...marked(one.text, one.used ?? []));
  const title = [el("span", { className: "rank" }, String(one.rank)), ` ${one.title || one.source} `];
  if (one.cited) title.push(el("span", { className: "mark used" }, "used"));
  const source = one.source && one.source !== one.title ? el("p", { className: "source" }, one.source) : null;
  return el("details", { open: one.cited }, el("summary", {}, ...title), text, source);
}

/** A text with some of its sentences marked. */
function marked(text, sentences) {
  const parts = [];
  let at = 0;
  for (const sentence of sentences) {
    const start = text.indexOf(sentence, at);
    if (start < 0) continue;
    parts.push(text.slice(at, start), el("mark", {}, sentence));
    at = start + sentence.length;
  }
  return [...parts, text.slice(at)];
}
