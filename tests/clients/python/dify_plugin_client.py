"""A caller that reads as strictly as Dify's OpenAI-API-compatible plugin does.

The plugin splits a stream at literal blank lines, takes every block for one `data:` line of JSON, wants `choices` in
every chunk, and gives up quietly where it cannot read on. Here giving up is an error.
"""

import json
import unittest

import requests

import gateway

SAID = [{"role": "user", "content": "ping"}]
ANSWER = "The tide is in. You said: ping"
TOOL = {"type": "function", "function": {"name": "tide", "description": "", "parameters": {"type": "object", "properties": {}}}}
CONNECT = 10
# The plugin waits 300 s between two bytes. Here everything is 150 times as fast.
READ = 300 / 150


class InvokeError(Exception):
    """The plugin tells its user that the call failed."""


class Plugin:
    def __init__(self, model, key=gateway.KEY):
        self.model = model
        self.endpoint = gateway.model_url(model).rstrip("/") + "/"
        self.headers = {"Content-Type": "application/json", "Accept-Charset": "utf-8", "Authorization": f"Bearer {key}"}

    def post(self, path, body, stream=False, read=10):
        response = requests.post(self.endpoint + path, headers=self.headers, json=body, stream=stream, timeout=(CONNECT, read))
        if response.status_code != 200:
            raise InvokeError(f"API request failed with status code {response.status_code}: {response.text}")
        return response

    def validate(self):
        """What happens when the user saves the model in Dify."""
        body = {"model": self.model, "max_tokens": 5, "messages": SAID}
        answer = self.post("chat/completions", body).json()
        if answer.get("object", "") not in ("", "chat.completion"):
            raise InvokeError(f"not a chat: {answer}")

    def body(self, messages, stream, **more):
        body = {
            "model": self.model,
            "stream": stream,
            "temperature": 0.7,
            "top_p": 1,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "user": "abc-123",
            "messages": messages,
            **more,
        }
        if stream:
            body["stream_options"] = {"include_usage": True}
        if "tools" in more:
            body["tool_choice"] = "auto"
        return body

    def invoke(self, messages, **more):
        answer = self.post("chat/completions", self.body(messages, False, **more)).json()
        message = answer["choices"][0]["message"]
        usage = answer.get("usage")
        if usage:
            usage = (usage["prompt_tokens"], usage["completion_tokens"])
        return {"text": message.get("content") or "", "calls": message.get("tool_calls") or [], "usage": usage}

    def invoke_stream(self, messages, read=10, **more):
        response = self.post("chat/completions", self.body(messages, True, **more), stream=True, read=read)
        return self.read(response)

    def read(self, response):
        read = {"text": "", "calls": [], "usage": None, "finish": None, "blocks": 0}
        for block in blocks(response):
            read["blocks"] += 1
            if block.startswith(":"):
                continue
            if block.count("\n"):
                raise InvokeError(f"more than one line in a block: {block!r}")
            data = block.strip().removeprefix("data:").lstrip()
            if "[DONE]" in data:
                continue
            try:
                chunk = json.loads(data)
            except json.JSONDecodeError:
                raise InvokeError(f"Non-JSON encountered: {block!r}") from None
            if chunk.get("error") and not chunk.get("choices"):
                raise InvokeError(str(chunk["error"]))
            if chunk.get("usage"):
                read["usage"] = (chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"])
            if not chunk["choices"]:  # a KeyError, as there
                continue
            choice = chunk["choices"][0]
            read["finish"] = choice.get("finish_reason") or read["finish"]
            delta = choice.get("delta") or {}
            read["text"] += delta.get("content") or ""
            for part in delta.get("tool_calls") or []:
                self.merge(read["calls"], part)
        return read

    @staticmethod
    def merge(calls, part):
        """Pieces of a call belong to the id they name, else to the call before."""
        function = part["function"]
        if part.get("id") or (not calls and function.get("name")):
            found = [call for call in calls if call["id"] == part["id"]]
            if not found:
                calls.append({"id": part["id"], "name": "", "arguments": ""})
            call = found[0] if found else calls[-1]
        else:
            call = calls[-1]
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""


def blocks(response):
    """The stream, cut at literal blank lines and nowhere else."""
    waiting = b""
    for part in response.iter_content(chunk_size=None):
        waiting += part
        *whole, waiting = waiting.split(b"\n\n")
        for block in whole:
            if b"\r" in block:
                raise InvokeError(f"a carriage return: {block!r}")
            if block.strip():
                yield block.decode("utf-8")
    if waiting.strip():
        yield waiting.decode("utf-8")


class Saving(unittest.TestCase):
    def test_credentials_are_accepted(self):
        Plugin("smart").validate()

    def test_wrong_credentials_are_told(self):
        with self.assertRaisesRegex(InvokeError, "status code 401: .*message"):
            Plugin("smart", "tg-nobody").validate()

    def test_embedding_credentials(self):
        answer = Plugin("embed").post("embeddings", {"model": "embed", "input": ["ping"]}).json()
        self.assertEqual(len(answer["data"]), 1)


class Chat(unittest.TestCase):
    def test_blocking(self):
        read = Plugin("smart").invoke(SAID)
        self.assertEqual((read["text"], read["usage"]), (ANSWER, (1, 7)))

    def test_stream(self):
        read = Plugin("smart").invoke_stream(SAID)
        self.assertEqual((read["text"], read["usage"], read["finish"]), (ANSWER, (1, 7), "stop"))
        self.assertGreater(read["blocks"], 7)

    def test_stream_cut_anywhere(self):
        read = Plugin("unicode").invoke_stream(SAID)
        self.assertEqual(read["text"], "die Flut: été, 潮が満ちる, море, 🌊🌙 и всё")
        self.assertIsNotNone(read["usage"])

    def test_nothing_is_held_back(self):
        # Ten events, 0.4 s apart: together longer than the client waits for one byte.
        read = Plugin("slow").invoke_stream(SAID, read=READ)
        self.assertEqual(read["text"], ANSWER)

    def test_unknown_fields_pass(self):
        more = {"chat_template_kwargs": {"enable_thinking": False}, "enable_thinking": False, "response_format": {"type": "text"}}
        self.assertEqual(Plugin("smart").invoke_stream(SAID, **more)["text"], ANSWER)

    def test_content_in_parts(self):
        parts = [
            {"type": "text", "text": "ping"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
        ]
        self.assertEqual(Plugin("smart").invoke([{"role": "user", "content": parts}])["text"], ANSWER)


class Tools(unittest.TestCase):
    def test_blocking(self):
        calls = Plugin("smart").invoke(SAID, tools=[TOOL])["calls"]
        self.assertEqual([call["function"]["name"] for call in calls], ["tide"])

    def test_stream_and_back(self):
        read = Plugin("smart").invoke_stream(SAID, tools=[TOOL])
        self.assertEqual(read["finish"], "tool_calls")
        (call,) = read["calls"]
        self.assertEqual((call["name"], json.loads(call["arguments"])["hour"]), ("tide", 6))
        function = {"name": call["name"], "arguments": call["arguments"]}
        messages = [
            *SAID,
            {"role": "assistant", "content": "", "tool_calls": [{"id": call["id"], "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": call["id"], "content": "06:12"},
        ]
        self.assertEqual(Plugin("smart").invoke_stream(messages, tools=[TOOL])["text"], ANSWER)


class Embeddings(unittest.TestCase):
    def test_order_is_kept(self):
        def embed(texts):
            body = {"model": "embed", "input": texts, "encoding_format": "float"}
            answer = Plugin("embed").post("embeddings", body).json()
            self.assertTrue(answer["model"])
            self.assertIn("total_tokens", answer["usage"])
            return [item["embedding"] for item in answer["data"]]

        self.assertEqual(embed(["a", "b", "c"]), embed(["a"]) + embed(["b"]) + embed(["c"]))

    def test_empty_authorization_is_refused_not_broken(self):
        plugin = Plugin("embed")
        plugin.headers["Authorization"] = ""
        with self.assertRaisesRegex(InvokeError, "status code 401"):
            plugin.post("embeddings", {"model": "embed", "input": ["ping"]})


class Cut(unittest.TestCase):
    @gateway.through_gateway
    def test_a_stream_that_ends_where_the_limit_does_is_no_failure(self):
        plugin = Plugin("talks", gateway.THRIFTY_KEY)
        plugin.headers["x-account"] = self.id()
        read = plugin.invoke_stream(SAID)
        self.assertEqual(read["finish"], "length")
        self.assertTrue(read["text"].startswith("w0 w1 "))


class Failures(unittest.TestCase):
    def test_unknown_model(self):
        with self.assertRaisesRegex(InvokeError, "status code 404"):
            body = {"model": "no-such-model", "messages": SAID}
            Plugin("smart").post("chat/completions", body)

    def test_everything_down(self):
        with self.assertRaisesRegex(InvokeError, "status code 50[0-9]: .*message"):
            Plugin("gone").invoke(SAID)

    def test_an_error_in_the_stream_is_raised(self):
        with self.assertRaises(InvokeError):
            Plugin("fails").invoke_stream(SAID)

    def test_a_broken_stream_is_raised(self):
        with self.assertRaises((InvokeError, requests.RequestException)) as caught:
            Plugin("breaks").invoke_stream(SAID)
        if not gateway.DIRECT:
            self.assertNotIn("Non-JSON", str(caught.exception), "half an event was handed on")


if __name__ == "__main__":
    gateway.main(__name__)
