// OpenAI's own Node SDK, unchanged, as a caller of the gateway. What it needs from the environment is told in ../python/gateway.py.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import OpenAI from "openai";

const url = (process.env.TIDEGATE_URL ?? "").replace(/\/$/, "");
const direct = process.env.TIDEGATE_DIRECT === "1";
const key = direct ? "sk-fake-direct" : process.env.TIDEGATE_KEY;
const limitedKey = direct ? key : process.env.TIDEGATE_LIMITED_KEY;
if (!url || !key || !limitedKey) throw new Error("TIDEGATE_URL, TIDEGATE_KEY and TIDEGATE_LIMITED_KEY say what to call");

// Which fake stands behind a model of ../tidegate.toml, if it is not `ok`.
const modes = {
  gone: "503",
  breaks: "cut-mid-3",
  fails: "error-chunk",
  unicode: "unicode+split-chars",
  limited: "429",
};
const said = [{ role: "user", content: "ping" }];
const answer = "The tide is in. You said: ping";
const tool = {
  type: "function",
  function: {
    name: "tide",
    description: "When the tide is high",
    parameters: { type: "object", properties: { city: { type: "string" }, hour: { type: "integer" } } },
  },
};

function client(model = "smart", apiKey = key) {
  const baseURL = direct ? `${url}/openai/${modes[model] ?? "ok"}/v1` : `${url}/v1`;
  return new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20_000 });
}

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

describe("chat", () => {
  test("whole", async () => {
    const reply = await client().chat.completions.create({ model: "smart", messages: said });
    assert.equal(reply.object, "chat.completion");
    assert.equal(reply.choices[0].message.content, answer);
    assert.equal(reply.choices[0].finish_reason, "stop");
    assert.deepEqual([reply.usage.prompt_tokens, reply.usage.completion_tokens], [1, 7]);
  });

  test("a stream without usage", async () => {
    const chunks = await all(await client().chat.completions.create({ model: "smart", messages: said, stream: true }));
    assert.equal(textOf(chunks), answer);
    assert.ok(chunks.length > 7);
    assert.ok(chunks.every((chunk) => chunk.choices.length > 0), "a chunk without choices, though usage was not asked for");
    assert.ok(chunks.every((chunk) => !chunk.usage));
    assert.deepEqual(chunks.map((chunk) => chunk.choices[0].finish_reason).filter(Boolean), ["stop"]);
  });

  test("a stream with usage", async () => {
    const stream_options = { include_usage: true };
    const chunks = await all(
      await client().chat.completions.create({ model: "smart", messages: said, stream: true, stream_options }),
    );
    assert.equal(textOf(chunks), answer);
    assert.deepEqual(chunks.map((chunk) => chunk.usage?.total_tokens).filter(Boolean), [8]);
    assert.deepEqual(chunks.at(-1).choices, []);
  });

  test("the helper for streams", async () => {
    const stream = client().chat.completions.stream({ model: "smart", messages: said });
    assert.equal(await stream.finalContent(), answer);
  });

  test("unicode that was cut anywhere", async () => {
    const whole = "die Flut: été, 潮が満ちる, море, 🌊🌙 и всё";
    const one = client("unicode");
    assert.equal(textOf(await all(await one.chat.completions.create({ model: "unicode", messages: said, stream: true }))), whole);
    const reply = await one.chat.completions.create({ model: "unicode", messages: said });
    assert.equal(reply.choices[0].message.content, whole);
  });

  test("a long prompt", async () => {
    const words = "tide ".repeat(60_000);
    const reply = await client().chat.completions.create({ model: "smart", messages: [{ role: "user", content: words }] });
    assert.equal(reply.usage.prompt_tokens, 60_000);
    assert.ok(reply.choices[0].message.content.endsWith(words));
  });

  test("many flaky calls at once all succeed", async () => {
    const one = client("lucky");
    const ask = (number) =>
      one.chat.completions.create({ model: "lucky", messages: [{ role: "user", content: `call ${number}` }] });
    const replies = await Promise.all(Array.from({ length: 9 }, (_, number) => ask(number)));
    replies.forEach((reply, number) => assert.ok(reply.choices[0].message.content.endsWith(`call ${number}`)));
  });

  test("an abandoned stream does no harm", async () => {
    const stream = await client().chat.completions.create({ model: "smart", messages: said, stream: true });
    for await (const _ of stream) break;
    const reply = await client().chat.completions.create({ model: "smart", messages: said });
    assert.equal(reply.choices[0].message.content, answer);
  });
});

describe("tools", () => {
  test("there and back", async () => {
    const asked = await client().chat.completions.create({ model: "smart", messages: said, tools: [tool] });
    assert.equal(asked.choices[0].finish_reason, "tool_calls");
    const [call] = asked.choices[0].message.tool_calls;
    assert.equal(call.function.name, "tide");
    assert.equal(JSON.parse(call.function.arguments).hour, 6);
    const messages = [...said, asked.choices[0].message, { role: "tool", tool_call_id: call.id, content: "06:12" }];
    const reply = await client().chat.completions.create({ model: "smart", messages, tools: [tool] });
    assert.equal(reply.choices[0].message.content, answer);
  });

  test("a stream", async () => {
    const stream = client().chat.completions.stream({ model: "smart", messages: said, tools: [tool] });
    const { message } = (await stream.finalChatCompletion()).choices[0];
    assert.equal(message.tool_calls.length, 1);
    assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Saint-Malo", hour: 6 });
  });
});

describe("other endpoints", () => {
  test("completions", async () => {
    const reply = await client().completions.create({ model: "smart", prompt: "ping" });
    assert.deepEqual([reply.object, reply.choices[0].text], ["text_completion", answer]);
    const chunks = await all(await client().completions.create({ model: "smart", prompt: "ping", stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), answer);
  });

  test("embeddings", async () => {
    const embeddings = client("embed").embeddings;
    // The SDK asks for base64 by itself, and decodes it.
    const packed = await embeddings.create({ model: "embed", input: ["a", "b"] });
    const plain = await embeddings.create({ model: "embed", input: ["a", "b"], encoding_format: "float" });
    assert.deepEqual(packed.data.map((item) => item.index), [0, 1]);
    assert.deepEqual(packed.data.map((item) => [...item.embedding]), plain.data.map((item) => item.embedding));
    assert.notDeepEqual(packed.data[0].embedding, packed.data[1].embedding);
    assert.equal(packed.usage.total_tokens, 2);
  });

  test("models", async () => {
    const names = (await all(client().models.list())).map((model) => model.id);
    for (const name of direct ? ["gpt-4.1"] : ["smart", "plain", "embed"]) assert.ok(names.includes(name), `${names}`);
    assert.equal(new Set(names).size, names.length);
  });

  test("responses", async () => {
    const reply = await client().responses.create({ model: "smart", input: "ping" });
    assert.deepEqual([reply.output_text, reply.status, reply.usage.output_tokens], [answer, "completed", 7]);
  });

  test("responses as a stream", async () => {
    const events = await all(await client().responses.create({ model: "smart", input: "ping", stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), answer);
    assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
    assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, number) => number));
  });

  test("speech", async () => {
    const reply = await client("voice").audio.speech.create({ model: "voice", voice: "alloy", input: "ping" });
    const bytes = new Uint8Array(await reply.arrayBuffer());
    assert.equal(bytes.length, 4096);
    assert.ok(bytes.every((byte, index) => byte === index % 256));
  });
});

describe("errors", () => {
  /** What every error tells: a message, a type and a code, in OpenAI's shape. */
  const is = (kind, more = () => {}) => (error) => {
    assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
    assert.ok(error.error?.message, error.message);
    assert.ok("type" in error.error && "code" in error.error, JSON.stringify(error.error));
    more(error);
    return true;
  };
  const chat = (one, body) => one.chat.completions.create({ model: "smart", messages: said, ...body });

  test("an unknown key", () =>
    assert.rejects(
      chat(client("smart", "tg-nobody")),
      is(OpenAI.AuthenticationError, (error) => assert.ok(!error.message.includes("tg-nobody"))),
    ));

  test("an unknown model", () => assert.rejects(chat(client(), { model: "no-such-model" }), is(OpenAI.NotFoundError)));

  test("a bad request that the gateway refuses", () => assert.rejects(chat(client(), { model: 17 }), is(OpenAI.BadRequestError)));

  test("a bad request that the provider refuses", () =>
    assert.rejects(
      chat(client("plain"), { model: "plain", messages: [] }),
      is(OpenAI.BadRequestError, (error) => assert.equal(error.param, "messages")),
    ));

  test("a limit", async () => {
    // Two a minute: even if a minute ends meanwhile, the fifth is too much.
    const five = async () => {
      for (let call = 0; call < 5; call++) await chat(client("limited", limitedKey), { model: "plain" });
    };
    await assert.rejects(
      five(),
      is(OpenAI.RateLimitError, (error) => assert.match(error.headers.get("retry-after"), /^[1-9][0-9]?$/)),
    );
  });

  test("all providers are down", () =>
    assert.rejects(chat(client("gone"), { model: "gone" }), is(OpenAI.InternalServerError)));

  test("a broken stream", async () => {
    const stream = await chat(client("breaks"), { model: "breaks", stream: true });
    // An error that is told, or a connection that breaks: anything but a stream that ends as if it were whole.
    await assert.rejects(all(stream));
  });

  test("an error in a stream", async () => {
    const stream = await chat(client("fails"), { model: "fails", stream: true });
    await assert.rejects(all(stream), OpenAI.APIError);
  });
});

test("what the gateway says of itself", { skip: direct && "there is no gateway between" }, async () => {
  const { data, response } = await client()
    .chat.completions.create({ model: "smart", messages: said })
    .withResponse();
  assert.equal(response.headers.get("x-tidegate-served-by"), "steady/gpt-4.1");
  assert.equal(response.headers.get("x-tidegate-route"), "llm");
  assert.ok(response.headers.get("x-tidegate-request"));
  assert.equal(data.model, "gpt-4.1");
  for (const name of ["set-cookie", "openai-organization"]) assert.equal(response.headers.get(name), null);
});
