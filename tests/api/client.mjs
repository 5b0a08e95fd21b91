// The official JavaScript client, run by test_js_client.py: node client.mjs BUILD URL MODEL DIGEST
// with the build `ollama` or `ollama/browser`. Throws where the server differs.
import assert from "node:assert/strict";

const [build, url, model, digest] = process.argv.slice(2);
const { Ollama } = await import(build);
const client = new Ollama({ host: url });
const options = { num_predict: 8, temperature: 0, seed: 1 };
const messages = [{ role: "user", content: "Say hello." }];

const checkMetrics = (last) => {
  assert.equal(last.done, true);
  assert.ok(["stop", "length"].includes(last.done_reason));
  assert.ok(last.prompt_eval_count > 0 && last.eval_count > 0 && last.total_duration > 0);
};

const whole = await client.generate({ model, prompt: "Say hello.", options });
assert.ok(whole.response);
checkMetrics(whole);

let text = "", last;
for await (const part of await client.generate({ model, prompt: "Say hello.", options, stream: true })) {
  text += part.response;
  last = part;
}
assert.equal(text, whole.response);
checkMetrics(last);

const answer = await client.chat({ model, messages, options });
assert.equal(answer.message.role, "assistant");
checkMetrics(answer);

text = "";
for await (const part of await client.chat({ model, messages, options, stream: true })) {
  text += part.message.content;
  last = part;
}
assert.equal(text, answer.message.content);
checkMetrics(last);

const list = await client.list();
assert.deepEqual(list.models.map((item) => item.model), [model]);
assert.deepEqual((await client.ps()).models.map((item) => item.model), [model]);
assert.ok((await client.show({ model })).capabilities.includes("completion"));
assert.match((await client.version()).version, /^\d+\.\d+\.\d+/);

const steps = [];
for await (const step of await client.create({ model: "made", files: { "m.gguf": digest }, system: "Hi.", stream: true })) {
  steps.push(step.status);
}
assert.equal(steps.at(-1), "success");
assert.equal((await client.create({ model: "child", from: "made", stream: false })).status, "success");
assert.equal((await client.show({ model: "child" })).system, "Hi.");
assert.equal((await client.copy({ source: "child", destination: "twin" })).status, "success");
assert.equal((await client.delete({ model: "child" })).status, "success");
const names = (await client.list()).models.map((item) => item.model).sort();
assert.deepEqual(names, [model, "made:latest", "twin:latest"].sort());

await assert.rejects(client.chat({ model: "absent", messages }), (error) => error.status_code === 404 && /not found/.test(error.message));

const stream = await client.generate({ model, prompt: "Count to a thousand.", stream: true });
await assert.rejects(async () => {
  for await (const part of stream) stream.abort();
}, { name: "AbortError" });
checkMetrics(await client.generate({ model, prompt: "Hi", options }));
console.log("all good");
