"""A caller of Dify's Service API, as applications are written against it."""

import json
import unittest

import requests

import gateway

USER = "abc-123"
CONVERSATION = {"conversation_id", "message_id", "created_at", "task_id"}


class App:
    def __init__(self, app, key=None):
        self.base = gateway.app_url(app)
        self.headers = {"Authorization": f"Bearer {key or gateway.app_key(app)}"}

    def call(self, method, path, stream=False, **more):
        return requests.request(method, f"{self.base}/{path}", headers=self.headers, stream=stream, timeout=(10, 20), **more)

    def post(self, path, body):
        return self.call("POST", path, json=body)

    def stream(self, path, body):
        response = self.call("POST", path, stream=True, json={**body, "response_mode": "streaming"})
        if response.status_code != 200:
            raise AssertionError(f"{response.status_code}: {response.text}")
        if not response.headers["content-type"].startswith("text/event-stream"):
            raise AssertionError(response.headers["content-type"])
        return list(events(response))


def events(response):
    """The events of a stream; a bare `event: ping` is one with nothing but its name."""
    waiting = b""
    for part in response.iter_content(chunk_size=None):
        waiting += part
        *whole, waiting = waiting.split(b"\n\n")
        for block in whole:
            lines = block.decode("utf-8").split("\n")
            if lines == ["event: ping"]:
                yield {"event": "ping"}
                continue
            (line,) = lines
            yield json.loads(line.removeprefix("data: "))
    if waiting:
        raise AssertionError(f"half an event at the end: {waiting!r}")


def names(all_events):
    return [event["event"] for event in all_events if event["event"] != "ping"]


def answer(all_events, name="message"):
    return "".join(event["answer"] for event in all_events if event["event"] == name)


def chat(query, **more):
    return {"query": query, "inputs": {}, "user": USER, **more}


class Chat(unittest.TestCase):
    def test_blocking(self):
        reply = App("chat").post("chat-messages", chat("Hi there")).json()
        self.assertEqual((reply["event"], reply["mode"], reply["answer"]), ("message", "chat", "You said: Hi there"))
        self.assertEqual(reply["metadata"]["usage"]["total_tokens"], 6)
        self.assertLessEqual(CONVERSATION, reply.keys())

    def test_stream(self):
        all_events = App("chat").stream("chat-messages", chat("Hi there"))
        self.assertEqual(names(all_events), ["message"] * 4 + ["message_end"])
        self.assertEqual(answer(all_events), "You said: Hi there")
        self.assertEqual(all_events[0], {"event": "ping"}, "the bare ping was not passed on")
        for event in all_events:
            if event["event"] != "ping":
                self.assertLessEqual(CONVERSATION, event.keys())
        (end,) = [event for event in all_events if event["event"] == "message_end"]
        self.assertEqual(end["metadata"]["usage"]["completion_tokens"], 4)

    def test_a_conversation_goes_on(self):
        app = App("chat")
        first = app.post("chat-messages", chat("one")).json()
        second = app.stream("chat-messages", chat("two", conversation_id=first["conversation_id"]))
        self.assertEqual(answer(second), "You said: two (turn 2, after: one)")
        query = {"user": USER, "conversation_id": first["conversation_id"]}
        listed = app.call("GET", "messages", params=query).json()
        self.assertEqual([item["query"] for item in listed["data"]], ["one", "two"])
        self.assertEqual(app.call("DELETE", f"conversations/{first['conversation_id']}", json={"user": USER}).status_code, 204)
        self.assertEqual(app.call("GET", "messages", params=query).status_code, 404)

    def test_stop(self):
        app = App("chat")
        task = app.post("chat-messages", chat("one")).json()["task_id"]
        self.assertEqual(app.post(f"chat-messages/{task}/stop", {"user": USER}).json(), {"result": "success"})

    def test_upload(self):
        files = {"file": ("tide.txt", "high at six 🌊".encode(), "text/plain")}
        reply = App("chat").call("POST", "files/upload", files=files, data={"user": USER})
        self.assertEqual(reply.status_code, 201)
        self.assertEqual((reply.json()["name"], reply.json()["size"]), ("tide.txt", len("high at six 🌊".encode())))

    def test_what_an_app_tells_of_itself(self):
        self.assertEqual(App("chat").call("GET", "info").json()["mode"], "chat")
        self.assertIn("user_input_form", App("chat").call("GET", "parameters").json())


class OtherApps(unittest.TestCase):
    def test_agent(self):
        all_events = App("agent").stream("chat-messages", chat("Hi"))
        self.assertEqual(answer(all_events, "agent_message"), "You said: Hi")
        self.assertEqual(names(all_events)[-1], "message_end")
        self.assertIn("agent_thought", names(all_events))

    def test_completion(self):
        body = {"inputs": {"query": "Hi"}, "user": USER}
        self.assertEqual(App("completion").post("completion-messages", body).json()["answer"], "You said: Hi")
        all_events = App("completion").stream("completion-messages", body)
        self.assertEqual(answer(all_events), "You said: Hi")

    def test_chatflow(self):
        all_events = App("chatflow").stream("chat-messages", chat("Hi"))
        self.assertEqual(answer(all_events), "You said: Hi")
        self.assertEqual(names(all_events)[0], "workflow_started")
        self.assertEqual(set(names(all_events)[-2:]), {"message_end", "workflow_finished"})

    def test_workflow(self):
        body = {"inputs": {"text": "Hi"}, "user": USER}
        app = App("workflow")
        reply = app.post("workflows/run", body).json()
        self.assertEqual((reply["data"]["status"], reply["data"]["outputs"]), ("succeeded", {"result": "You said: Hi"}))
        self.assertEqual(app.call("GET", f"workflows/run/{reply['workflow_run_id']}").json()["status"], "succeeded")
        all_events = app.stream("workflows/run", body)
        text = "".join(event["data"]["text"] for event in all_events if event["event"] == "text_chunk")
        self.assertEqual(text, "You said: Hi")
        self.assertEqual(names(all_events)[-1], "workflow_finished")


class Errors(unittest.TestCase):
    def refused(self, reply, status):
        self.assertEqual(reply.status_code, status, reply.text)
        told = reply.json()
        self.assertEqual(told["status"], status)
        self.assertTrue(told["code"] and told["message"], told)
        return told

    def test_unauthorized(self):
        told = self.refused(App("chat", "tg-nobody").post("chat-messages", chat("Hi")), 401)
        self.assertEqual(told["code"], "unauthorized")

    def test_no_user(self):
        told = self.refused(App("chat").post("chat-messages", {"query": "Hi", "inputs": {}}), 400)
        self.assertEqual(told["code"], "invalid_param")

    def test_wrong_kind_of_app(self):
        self.assertEqual(self.refused(App("chat").post("workflows/run", chat("Hi")), 400)["code"], "not_workflow_app")

    def test_unknown_conversation(self):
        body = chat("Hi", conversation_id="45701982-8118-4bc5-8e9b-64562b4555f2")
        self.assertEqual(self.refused(App("chat").post("chat-messages", body), 404)["code"], "not_found")


class Gateway(unittest.TestCase):
    @gateway.through_gateway
    def test_headers(self):
        reply = App("chat").post("chat-messages", chat("Hi"))
        self.assertEqual(reply.headers["x-tidegate-route"], "chat")
        self.assertTrue(reply.headers["x-tidegate-request"])
        for name in ["x-version", "x-env"]:
            self.assertNotIn(name, reply.headers)

    @gateway.through_gateway
    @gateway.sees_fakes
    def test_the_app_key_is_put_in_and_ours_kept_out(self):
        App("chat").post("chat-messages", chat("Hi"))
        counts = requests.get(f"{gateway.FAKES_URL}/_counts/dify/pings", timeout=10).json()
        self.assertNotIn(gateway.KEY, json.dumps(counts))
        self.assertIn("app-chat-clients", counts["keys"])


if __name__ == "__main__":
    gateway.main(__name__)
