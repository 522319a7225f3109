// Asks one arm and reads its answer as it comes. Nothing here touches the page.

/** What the server said of a request that it refused, as one line. */
async function refusal(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** POST an object as JSON; throws an Error with what the server said where it refuses. */
export async function send(path, body, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (response.status === 401) throw new Error("the server does not know this key any more; load the page again");
  if (!response.ok) throw new Error(await refusal(response));
  return response;
}

/** The arms that are served, first the one that is meant by the task's name. */
export async function models() {
  const response = await fetch("/v1/models");
  if (!response.ok) throw new Error(await refusal(response));
  return (await response.json()).data.filter((model) => model.trimtab);
}

/** The data of each server-sent event; its name, where it has one, is not needed. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const line = part.split("\n").find((one) => one.startsWith("data: "));
      if (line) yield line.slice(6);
    }
  }
}

/**
 * Fill `answer` ({model, messages}) as text comes, and call `changed` each time. It ends as "whole", "stopped" or "failed".
 * Times are seconds since the question was sent, as seen in this page.
 */
export async function ask(answer, signal, changed) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  Object.assign(answer, { state: "waiting", text: "", pieces: 0 });
  const body = { model: answer.model.id, messages: answer.messages, stream: true, stream_options: { include_usage: true } };
  try {
    const response = await send("/v1/chat/completions", body, signal);
    let ended = false;
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        ended = true;
        break;
      }
      take(JSON.parse(data), answer, since);
      changed();
    }
    if (!ended) throw new Error("the answer broke off");
    answer.state = "whole";
  } catch (error) {
    answer.state = signal.aborted ? "stopped" : "failed";
    answer.why = error instanceof TypeError ? "the server cannot be reached" : error.message;
  }
  answer.seconds = since();
  changed();
}

function take(chunk, answer, since) {
  if (chunk.error) throw new Error(chunk.error.message); // it failed once it had begun: the last event says why
  const [choice] = chunk.choices;
  const piece = choice?.delta?.content;
  if (piece) {
    answer.first ??= since();
    answer.pieces += 1;
    answer.text += piece;
    answer.state = "writing";
  }
  if (choice?.finish_reason) {
    answer.last = since();
    answer.cut = choice.finish_reason === "length";
  }
  if (chunk.trimtab) answer.known = chunk.trimtab;
  if (chunk.usage) answer.tokens = chunk.usage.completion_tokens;
}
