// Dify's own client for Node, the package `dify-client`, unchanged, as a caller of apps. What it needs from the environment is told
// in ../python/gateway.py.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { ChatClient, CompletionClient, DifyClient } from "dify-client";

const url = (process.env.TIDEGATE_URL ?? "").replace(/\/$/, "");
const direct = process.env.TIDEGATE_DIRECT === "1";
const key = process.env.TIDEGATE_KEY;
if (!url || (!direct && !key)) throw new Error("TIDEGATE_URL and TIDEGATE_KEY say what to call");
const apps = (process.env.TIDEGATE_DIFY_URL ?? `${url}/apps`).replace(/\/$/, "");
const user = "abc-123";

function client(Kind, app, theirs = direct ? `app-${app}-direct` : key) {
  return new Kind(theirs, direct ? `${url}/dify/pings/v1` : `${apps}/${app}/v1`);
}

async function events(response) {
  let text = "";
  for await (const piece of response.data.setEncoding("utf8")) text += piece;
  const blocks = text.split("\n\n").filter((block) => block.startsWith("data: "));
  return blocks.map((block) => JSON.parse(block.slice("data: ".length)));
}

const answer = (said) => said.flatMap((event) => (event.event === "message" ? [event.answer] : [])).join("");

describe("dify-client", () => {
  test("a conversation", async () => {
    const chat = client(ChatClient, "chat");
    const { data: first } = await chat.createChatMessage({}, "one", user);
    assert.equal(first.answer, "You said: one");
    const second = await events(await chat.createChatMessage({}, "two", user, true, first.conversation_id));
    assert.equal(answer(second), "You said: two (turn 2, after: one)");
    assert.equal(second.at(-1).event, "message_end");
    const { data: listed } = await chat.getConversationMessages(user, first.conversation_id);
    assert.deepEqual(listed.data.map((message) => message.query), ["one", "two"]);
    const { data: conversations } = await chat.getConversations(user);
    assert.ok(conversations.data.some((one) => one.id === first.conversation_id));
    const { data: liked } = await chat.messageFeedback(first.message_id, "like", user);
    assert.deepEqual(liked, { result: "success" });
    assert.equal((await chat.renameConversation(first.conversation_id, "tides", user, false)).status, 200);
    assert.equal((await chat.deleteConversation(first.conversation_id, user)).status, 204);
  });

  test("a stop", async () => {
    const chat = client(ChatClient, "chat");
    const { data } = await chat.createChatMessage({}, "one", user);
    const stopped = await chat.sendRequest("POST", `/chat-messages/${data.task_id}/stop`, { user });
    assert.deepEqual(stopped.data, { result: "success" });
  });

  test("a completion", async () => {
    const completion = client(CompletionClient, "completion");
    assert.equal((await completion.createCompletionMessage({ query: "Hi" }, user)).data.answer, "You said: Hi");
    const streamed = await completion.createCompletionMessage({ query: "Hi" }, user, true);
    assert.equal(answer(await events(streamed)), "You said: Hi");
  });

  test("a workflow", async () => {
    const workflow = client(CompletionClient, "workflow");
    const { data } = await workflow.runWorkflow({ text: "Hi" }, user);
    assert.deepEqual([data.data.status, data.data.outputs], ["succeeded", { result: "You said: Hi" }]);
    const streamed = await events(await workflow.runWorkflow({ text: "Hi" }, user, true));
    assert.equal(streamed.at(-1).event, "workflow_finished");
  });

  test("a file", async () => {
    const form = new FormData();
    form.append("user", user);
    form.append("file", new Blob(["high at six 🌊"], { type: "text/plain" }), "tide.txt");
    const { status, data } = await client(DifyClient, "chat").fileUpload(form);
    assert.deepEqual([status, data.name], [201, "tide.txt"]);
  });

  test("what an app wants", async () => {
    const { data } = await client(DifyClient, "chat").getApplicationParameters(user);
    assert.ok("user_input_form" in data);
  });

  test("a wrong key", async () => {
    const asked = client(ChatClient, "chat", "tg-nobody").createChatMessage({}, "one", user);
    await assert.rejects(asked, (error) => error.response.status === 401 && error.response.data.code === "unauthorized");
  });
});
