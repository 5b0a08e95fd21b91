// Thoughts and tool calls in the official JavaScript client, run by test_js_client.py: node tools.mjs URL MODEL
import assert from "node:assert/strict";
import { Ollama } from "ollama";

const [url, model] = process.argv.slice(2);
const client = new Ollama({ host: url });
const tools = [{ type: "function", function: { name: "weather", description: "", parameters: { type: "object", properties: {} } } }];
const messages = [{ role: "user", content: "Weather?" }];

const answer = await client.chat({ model, messages, tools, think: true });
assert.equal(answer.message.thinking, "I need the weather.");
assert.equal(answer.message.content, "I look.");
const calls = answer.message.tool_calls.map((call) => call.function);
assert.deepEqual(calls.map(({ name, arguments: given }) => [name, given]), [["weather", { city: "Oslo", days: 2 }]]);

const whole = { content: "", thinking: "", calls: [] };
for await (const part of await client.chat({ model, messages, tools, stream: true })) {
  whole.content += part.message.content;
  whole.thinking += part.message.thinking ?? "";
  whole.calls.push(...(part.message.tool_calls ?? []).map((call) => call.function));
}
assert.deepEqual(whole, { content: "I look.", thinking: "I need the weather.", calls });

const told = [...messages, answer.message, { role: "tool", tool_name: "weather", content: "11 degrees" }];
assert.equal((await client.chat({ model, messages: told, tools })).message.content, "11 degrees.");
console.log("all good");
