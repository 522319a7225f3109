// The official JavaScript client.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const model = process.env.MODEL;
const messages = [{ role: "user", content: "What is 2 plus 3? Use the functions." }];
const integer = { type: "integer", minimum: 0, maximum: 99 };
const tools = [
  { type: "function", function: { name: "add", parameters: { type: "object", properties: { a: integer, b: integer }, required: ["a", "b"] } } },
  { type: "function", function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string", maxLength: 20 } }, required: ["city"] } } },
];
const isCall = ({ name, arguments: text }) => {
  const given = JSON.parse(text);
  return name === "add" ? Number.isInteger(given.a + given.b) : typeof given.city === "string";
};
const check = async (name, run) => {
  let line = { check: name };
  try {
    if (!(await run())) line.failed = "returned nothing";
  } catch (error) {
    line.failed = String(error).slice(0, 300);
  }
  console.log(JSON.stringify(line).replace('{"check":', '{"check": '));
};

await check("chat", async () => (await client.chat.completions.create({ model, messages, max_tokens: 20 })).choices[0].message.content);
await check("tools, auto", async () => {
  const { message } = (await client.chat.completions.create({ model, messages, tools, max_tokens: 60 })).choices[0];
  return message.content || isCall(message.tool_calls[0].function);
});
await check("tools, required, result sent back", async () => {
  const { message } = (await client.chat.completions.create({ model, messages, tools, tool_choice: "required" })).choices[0];
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "5" };
  const after = await client.chat.completions.create({ model, messages: [...messages, message, result], tools, max_tokens: 30 });
  return isCall(message.tool_calls[0].function) && after.choices[0].message;
});
await check("tools, streamed", async () => {
  const stream = client.chat.completions.stream({ model, messages, tools, tool_choice: "required" });
  return isCall((await stream.finalChatCompletion()).choices[0].message.tool_calls[0].function);
});
await check("parse, zod", async () => {
  const response_format = zodResponseFormat(z.object({ n: z.number().int().min(0).max(99) }), "sum");
  return (await client.chat.completions.parse({ model, messages, response_format })).choices[0].message.parsed;
});
await check("responses, tools", async () => {
  const flat = tools.map((tool) => ({ type: "function", ...tool.function, strict: false }));
  return isCall((await client.responses.create({ model, input: messages, tools: flat, tool_choice: "required" })).output[0]);
});
