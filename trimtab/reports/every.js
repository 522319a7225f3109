// Looks through the answers that stand in this page as data. Whatever they hold becomes text, never markup.
"use strict";
(() => {
  const at = (name) => document.getElementById(`every-${name}`);
  const { texts, questions } = JSON.parse(at("data").textContent);
  const labels = at("labels").content.children;
  const selects = ["arm", "kind", "slice"].map(at);
  const [arm, kind, slice] = selects;
  const words = at("words");
  const STEP = 20; // questions shown at once
  let most = STEP;
  let lowered; // the texts as words are looked for in them, made when they are first needed

  const low = (text) => text.normalize("NFKC").toLowerCase();
  const any = (select) => !select || select.selectedIndex === 0;
  const lowest = ([, , answers]) => Math.min(...answers.map(([, score]) => Number(texts[score])));

  function matching() {
    const wanted = low(words.value).split(/\s+/).filter(Boolean);
    if (wanted.length) lowered ??= texts.map(low);
    const found = [];
    for (const [question, reference, part, answers] of questions) {
      if (!any(slice) && texts[part] !== slice.value) continue;
      const left = answers.filter(
        ([whose, , failure, said]) =>
          (any(arm) || whose === arm.selectedIndex - 1) &&
          (any(kind) || texts[failure] === kind.value) &&
          wanted.every((word) => [question, reference, said].some((text) => lowered[text].includes(word))),
      );
      if (left.length) found.push([question, reference, left]);
    }
    return found.sort((one, other) => lowest(one) - lowest(other));
  }

  function element(tag, kind = "", text = "") {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.textContent = text;
    return made;
  }

  function theirs(tag, kind, text) {
    const made = element(tag, kind, text);
    made.dir = "auto";
    return made;
  }

  function answered([whose, score, failure, said, passages, seed]) {
    const line = element("li");
    const who = element("div", "who");
    who.append(labels[whose].cloneNode(true), element("span", "figure", texts[score]));
    if (texts[seed]) who.append(element("span", "figure", texts[seed]));
    if (texts[failure]) who.append(element("span", "no", texts[failure]));
    line.append(who, theirs("div", "said", texts[said]));
    if (texts[passages]) line.append(element("div", "soft", `passages: ${texts[passages]}`));
    return line;
  }

  function asked([question, reference, answers]) {
    const block = element("div", "example");
    const head = element("dl", "question");
    const list = element("ul", "answers");
    head.append(element("dt", "", "Question"), theirs("dd", "", texts[question]));
    head.append(element("dt", "", "Reference"), theirs("dd", "", texts[reference]));
    list.append(...answers.map(answered));
    block.append(head, list);
    return block;
  }

  function count(number, what) {
    return `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
  }

  function show() {
    const found = matching();
    const answers = found.reduce((sum, [, , left]) => sum + left.length, 0);
    at("count").textContent = `${count(answers, "answer")} to ${count(found.length, "question")}`;
    at("found").replaceChildren(...found.slice(0, most).map(asked));
    at("more").hidden = found.length <= most;
    at("more").textContent = `Show ${Math.min(STEP, found.length - most)} more`;
  }

  // A look is kept in the address, so that it can be sent on: report.html#every?arm=rag&words=leave
  function read() {
    const [place, query] = location.hash.slice(1).split("?");
    if (place !== "every" || query === undefined) return;
    const given = new URLSearchParams(query);
    for (const select of selects.filter(Boolean)) {
      const wanted = given.get(select.name);
      select.selectedIndex = Math.max(0, [...select.options].findIndex((option) => option.text === wanted));
    }
    words.value = given.get("words") ?? "";
    document.getElementById("every").scrollIntoView();
  }

  function write() {
    const said = selects.filter((select) => !any(select)).map((select) => [select.name, select.selectedOptions[0].text]);
    if (words.value) said.push(["words", words.value]);
    history.replaceState(null, "", `#every?${new URLSearchParams(said)}`);
  }

  function anew() {
    most = STEP;
    show();
  }

  at("without").hidden = true;
  at("look").hidden = false;
  at("look").addEventListener("input", () => {
    anew();
    write();
  });
  at("more").addEventListener("click", () => {
    most += STEP;
    show();
  });
  window.addEventListener("hashchange", () => {
    read();
    anew();
  });
  read();
  show();
})();
