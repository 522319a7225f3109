// Vercel's AI SDK, by its provider of OpenAI-compatible servers and by that of OpenAI (responses).
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const where = { name: "here", baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY };
const model = createOpenAICompatible({ ...where, supportsStructuredOutputs: true })(process.env.MODEL);
const prompt = "What is 2 plus 3? Use the functions.";
const number = z.number().int().min(0).max(99);
const tools = {
  add: tool({ description: "Add two numbers", inputSchema: z.object({ a: number, b: number }), execute: async ({ a, b }) => a + b }),
  weather: tool({ description: "Say the weather", inputSchema: z.object({ city: z.string().max(20) }), execute: async ({ city }) => city }),
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

await check("generateText", async () => (await generateText({ model, prompt, maxOutputTokens: 20 })).text);
await check("tools, auto, two steps", async () => {
  const { text, steps } = await generateText({ model, prompt, tools, maxOutputTokens: 60, stopWhen: stepCountIs(2) });
  return text || steps[0].toolResults.length;
});
await check("tools, required, run", async () => (await generateText({ model, prompt, tools, toolChoice: "required" })).toolResults.length === 1);
await check("streamText, tools", async () => (await streamText({ model, prompt, tools, toolChoice: "required" }).toolResults).length === 1);
await check("generateObject", async () => (await generateObject({ model, prompt, schema: z.object({ n: number }) })).object);
await check("responses, tools, required", async () => {
  const responses = createOpenAI(where)(process.env.MODEL);
  return (await generateText({ model: responses, prompt, tools, toolChoice: "required" })).toolResults.length === 1;
});
