"""OpenAI's own Python SDK, unchanged, as a caller of the gateway."""

import json
import unittest

import openai
import requests

import gateway

SAID = [{"role": "user", "content": "ping"}]
ANSWER = "The tide is in. You said: ping"
TOOL = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "When the tide is high",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "hour": {"type": "integer"}}},
    },
}


def client(model="smart", key=gateway.KEY):
    return openai.OpenAI(base_url=gateway.model_url(model), api_key=key, max_retries=0, timeout=20)


def text_of(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


class Chat(unittest.TestCase):
    def test_whole(self):
        answer = client().chat.completions.create(model="smart", messages=SAID)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.choices[0].message.content, ANSWER)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.completion_tokens), (1, 7))

    def test_stream_without_usage(self):
        chunks = list(client().chat.completions.create(model="smart", messages=SAID, stream=True))
        self.assertEqual(text_of(chunks), ANSWER)
        self.assertGreater(len(chunks), 7)
        self.assertTrue(all(chunk.choices for chunk in chunks), "a chunk without choices, though usage was not asked for")
        self.assertTrue(all(chunk.usage is None for chunk in chunks))
        self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason], ["stop"])

    def test_stream_with_usage(self):
        options = {"include_usage": True}
        chunks = list(client().chat.completions.create(model="smart", messages=SAID, stream=True, stream_options=options))
        self.assertEqual(text_of(chunks), ANSWER)
        self.assertEqual([chunk.usage.total_tokens for chunk in chunks if chunk.usage], [8])
        self.assertEqual(chunks[-1].choices, [])

    def test_stream_helper(self):
        with client().chat.completions.stream(model="smart", messages=SAID) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion()
        self.assertIn("content.done", kinds)
        self.assertEqual(final.choices[0].message.content, ANSWER)

    def test_unicode_that_was_cut_anywhere(self):
        whole = "die Flut: été, 潮が満ちる, море, 🌊🌙 и всё"
        stream = client("unicode").chat.completions.create(model="unicode", messages=SAID, stream=True)
        self.assertEqual(text_of(stream), whole)
        answer = client("unicode").chat.completions.create(model="unicode", messages=SAID)
        self.assertEqual(answer.choices[0].message.content, whole)

    def test_long_prompt(self):
        words = "tide " * 60_000
        answer = client().chat.completions.create(model="smart", messages=[{"role": "user", "content": words}])
        self.assertEqual(answer.usage.prompt_tokens, 60_000)
        self.assertTrue(answer.choices[0].message.content.endswith(words))

    def test_many_flaky_calls_all_succeed(self):
        with client("lucky") as one:
            for number in range(9):
                said = [{"role": "user", "content": f"call {number}"}]
                answer = one.chat.completions.create(model="lucky", messages=said)
                self.assertTrue(answer.choices[0].message.content.endswith(f"call {number}"))

    def test_max_tokens(self):
        answer = client().chat.completions.create(model="smart", messages=SAID, max_completion_tokens=3)
        self.assertEqual((answer.choices[0].message.content, answer.choices[0].finish_reason), ("The tide is ", "length"))


class Tools(unittest.TestCase):
    def test_there_and_back(self):
        asked = client().chat.completions.create(model="smart", messages=SAID, tools=[TOOL])
        self.assertEqual(asked.choices[0].finish_reason, "tool_calls")
        call = asked.choices[0].message.tool_calls[0]
        self.assertEqual((call.function.name, json.loads(call.function.arguments)["hour"]), ("tide", 6))
        messages = [
            *SAID,
            asked.choices[0].message.to_dict(),
            {"role": "tool", "tool_call_id": call.id, "content": "06:12"},
        ]
        answer = client().chat.completions.create(model="smart", messages=messages, tools=[TOOL])
        self.assertEqual(answer.choices[0].message.content, ANSWER)

    def test_stream(self):
        with client().chat.completions.stream(model="smart", messages=SAID, tools=[TOOL]) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
        self.assertEqual(len(message.tool_calls), 1)
        self.assertEqual(json.loads(message.tool_calls[0].function.arguments), {"city": "Saint-Malo", "hour": 6})


class OtherEndpoints(unittest.TestCase):
    def test_completions(self):
        answer = client().completions.create(model="smart", prompt="ping")
        self.assertEqual((answer.object, answer.choices[0].text), ("text_completion", ANSWER))
        stream = client().completions.create(model="smart", prompt="ping", stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in stream), ANSWER)

    def test_embeddings(self):
        # The SDK asks for base64 by itself, and decodes it.
        packed = client("embed").embeddings.create(model="embed", input=["a", "b"])
        plain = client("embed").embeddings.create(model="embed", input=["a", "b"], encoding_format="float")
        self.assertEqual([item.index for item in packed.data], [0, 1])
        self.assertEqual([item.embedding for item in packed.data], [item.embedding for item in plain.data])
        self.assertNotEqual(packed.data[0].embedding, packed.data[1].embedding)
        self.assertEqual(packed.usage.total_tokens, 2)

    def test_embedding_of_tokens(self):
        answer = client("embed").embeddings.create(model="embed", input=[[1, 2, 3], [4]], dimensions=16)
        self.assertEqual([len(item.embedding) for item in answer.data], [16, 16])

    def test_models(self):
        names = [model.id for model in client().models.list()]
        expected = {"gpt-4.1"} if gateway.DIRECT else {"smart", "plain", "embed"}
        self.assertLessEqual(expected, set(names))
        self.assertEqual(len(names), len(set(names)))

    def test_responses(self):
        answer = client().responses.create(model="smart", input="ping")
        self.assertEqual((answer.output_text, answer.status), (ANSWER, "completed"))
        self.assertEqual(answer.usage.output_tokens, 7)

    def test_responses_stream(self):
        events = list(client().responses.create(model="smart", input="ping", stream=True))
        self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"), ANSWER)
        self.assertEqual((events[0].type, events[-1].type), ("response.created", "response.completed"))
        self.assertEqual([event.sequence_number for event in events], list(range(len(events))))
        self.assertEqual(events[-1].response.output_text, ANSWER)

    def test_speech(self):
        answer = client("voice").audio.speech.create(model="voice", voice="alloy", input="ping")
        self.assertEqual(answer.content, bytes(range(256)) * 16)


@gateway.through_gateway
class Apps(unittest.TestCase):
    """Apps of Dify that stand for models."""

    KINDS = ["app", "agent", "chatflow", "writer", "workflow"]

    def ask(self, model, **more):
        one = openai.OpenAI(base_url=f"{gateway.URL}/v1", api_key=gateway.KEY, max_retries=0, timeout=20)
        return one.chat.completions.create(model=model, **{"messages": SAID, "user": "sdk", **more})

    def test_whole(self):
        for kind in self.KINDS:
            answer = self.ask(kind)
            self.assertEqual((answer.object, answer.model), ("chat.completion", kind))
            self.assertEqual(answer.choices[0].message.role, "assistant")
            self.assertIn("ping", answer.choices[0].message.content)
            self.assertEqual(answer.choices[0].finish_reason, "stop")
            self.assertGreater(answer.usage.total_tokens, 0)

    def test_stream(self):
        for kind in self.KINDS:
            whole = self.ask(kind).choices[0].message.content
            chunks = list(self.ask(kind, stream=True, stream_options={"include_usage": True}))
            self.assertEqual(text_of(chunks), whole, kind)
            self.assertEqual(len({chunk.id for chunk in chunks}), 1)
            self.assertEqual([c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason], ["stop"])
            self.assertGreater(chunks[-1].usage.total_tokens, 0)
            self.assertTrue(all(chunk.usage is None for chunk in self.ask(kind, stream=True)))

    def test_stream_helper(self):
        one = openai.OpenAI(base_url=f"{gateway.URL}/v1", api_key=gateway.KEY, max_retries=0, timeout=20)
        with one.chat.completions.stream(model="app", messages=SAID) as stream:
            kinds = {event.type for event in stream}
            final = stream.get_final_completion()
        self.assertIn("content.done", kinds)
        self.assertIn("ping", final.choices[0].message.content)

    def test_conversation(self):
        first = self.ask("app", messages=[{"role": "user", "content": "high tide"}])
        talk = first.conversation["id"]
        said = [{"role": "assistant", "content": "…"}, {"role": "user", "content": "low tide"}]
        for more in [{"extra_body": {"conversation": talk}}, {"extra_headers": {"x-dify-conversation-id": talk}}]:
            answer = self.ask("app", messages=said, **more)
            self.assertEqual(answer.conversation["id"], talk)
            self.assertRegex(answer.choices[0].message.content, r"You said: low tide \(turn [23], after: ")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.ask("app", user="another", extra_body={"conversation": talk})
        self.assertEqual(caught.exception.code, "not_found")

    def test_files(self):
        pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
        parts = [
            {"type": "text", "text": "ping"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixel}"}},
            {"type": "file", "file": {"filename": "tide.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQK"}},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        ]
        for kind in self.KINDS:
            for stream in [False, True]:
                answer = self.ask(kind, messages=[{"role": "user", "content": parts}], stream=stream)
                said = text_of(list(answer)) if stream else answer.choices[0].message.content
                self.assertIn("[image file.png: image/png, 70 bytes]", said, kind)
                self.assertIn("[document tide.pdf: application/pdf, 9 bytes]", said, kind)
                self.assertIn("[audio file.wav: audio/wav, 4 bytes]", said, kind)

    def test_completions(self):
        one = openai.OpenAI(base_url=f"{gateway.URL}/v1", api_key=gateway.KEY, max_retries=0, timeout=20)
        answer = one.completions.create(model="writer", prompt="ping")
        self.assertEqual(answer.object, "text_completion")
        self.assertIn("ping", answer.choices[0].text)
        chunks = list(one.completions.create(model="writer", prompt="ping", stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), answer.choices[0].text)

    def test_what_no_app_can_do(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask("agent", tools=[TOOL])
        self.assertEqual(caught.exception.param, "tools")


class Errors(unittest.TestCase):
    def told(self, error):
        """What every error tells: a message and a type, in OpenAI's shape."""
        self.assertIsInstance(error.body, dict, error)
        self.assertTrue(error.body["message"], error)
        self.assertIn("type", error.body)
        self.assertIn("code", error.body)
        return error

    def test_unauthorized(self):
        with self.assertRaises(openai.AuthenticationError) as caught:
            client(key="tg-nobody").chat.completions.create(model="smart", messages=SAID)
        self.assertNotIn("tg-nobody", str(self.told(caught.exception)))

    def test_unknown_model(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            client().chat.completions.create(model="no-such-model", messages=SAID)
        self.told(caught.exception)

    def test_bad_request_of_the_gateway(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client().chat.completions.create(model=17, messages=SAID)
        self.told(caught.exception)

    def test_bad_request_of_the_provider(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            client("plain").chat.completions.create(model="plain", messages=[])
        self.assertEqual(self.told(caught.exception).param, "messages")

    def test_rate_limit(self):
        one = client("limited", gateway.LIMITED_KEY)
        # Two a minute: even if a minute ends meanwhile, the fifth is too much.
        for _ in range(5):
            try:
                one.chat.completions.create(model="plain", messages=SAID)
            except openai.RateLimitError as error:
                self.told(error)
                self.assertRegex(error.response.headers["retry-after"], r"^[1-9][0-9]?$")
                return
        self.fail("nobody was refused")

    def test_all_providers_down(self):
        with self.assertRaises(openai.InternalServerError) as caught:
            client("gone").chat.completions.create(model="gone", messages=SAID)
        self.told(caught.exception)

    def test_broken_stream(self):
        stream = client("breaks").chat.completions.create(model="breaks", messages=SAID, stream=True)
        # An error that is told, or a connection that breaks: anything but a stream that ends as if it were whole.
        with self.assertRaises(Exception):
            for _ in stream:
                pass

    def test_error_in_a_stream(self):
        stream = client("fails").chat.completions.create(model="fails", messages=SAID, stream=True)
        with self.assertRaises(openai.APIError):
            for _ in stream:
                pass


@gateway.through_gateway
class Cut(unittest.TestCase):
    """The provider would say 2,000 words; there are not tokens enough for all of them."""

    def client(self):
        account = {"x-account": f"{self.id()}"}
        return client("talks", gateway.THRIFTY_KEY).with_options(default_headers=account)

    def test_chat(self):
        chunks = list(self.client().chat.completions.create(model="talks", messages=SAID, stream=True))
        self.assertTrue(text_of(chunks).startswith("w0 w1 "))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")
        self.assertEqual(chunks[-1].id, chunks[0].id)
        self.assertIn("limit on tokens", chunks[-1].tidegate["limit"])

    def test_chat_helper(self):
        with self.client().chat.completions.stream(model="talks", messages=SAID) as stream:
            list(stream)
            # The helper's own word for an answer that was as long as it may be.
            with self.assertRaises(openai.LengthFinishReasonError) as caught:
                stream.get_final_completion()
        self.assertTrue(caught.exception.completion.choices[0].message.content.startswith("w0 w1 "))

    def test_completion(self):
        chunks = list(self.client().completions.create(model="talks", prompt="ping", stream=True))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "length")

    def test_response(self):
        events = list(self.client().responses.create(model="talks", input="ping", stream=True))
        self.assertEqual(events[-1].type, "response.incomplete")
        self.assertEqual(events[-1].response.id, events[0].response.id)
        self.assertEqual(events[-1].response.incomplete_details.reason, "max_output_tokens")

    def test_response_helper(self):
        with self.client().responses.stream(model="talks", input="ping") as stream:
            kinds = [event.type for event in stream]
        self.assertEqual(kinds[-1], "response.incomplete")

    def test_too_much_at_once(self):
        with self.assertRaises(openai.APIStatusError) as caught:
            self.client().chat.completions.create(model="talks", messages=[{"role": "user", "content": "x" * 3000}])
        self.assertEqual((caught.exception.status_code, caught.exception.code), (413, "too_many_tokens"))


class Gateway(unittest.TestCase):
    @gateway.through_gateway
    def test_headers(self):
        answer = client().chat.completions.with_raw_response.create(model="smart", messages=SAID)
        self.assertTrue(answer.headers["x-tidegate-request"])
        self.assertEqual(answer.headers["x-tidegate-route"], "llm")
        self.assertEqual(answer.headers["x-tidegate-served-by"], "steady/gpt-4.1")
        self.assertEqual(answer.parse().model, "gpt-4.1")
        for name in ["set-cookie", "openai-organization"]:
            self.assertNotIn(name, answer.headers)

    @gateway.sees_fakes
    def test_only_the_provider_key_reaches_the_provider(self):
        client("plain").chat.completions.create(model="plain", messages=SAID)
        counts = requests.get(f"{gateway.FAKES_URL}/_counts/openai/ok", timeout=10).json()
        if not gateway.DIRECT:
            self.assertNotIn(gateway.KEY, json.dumps(counts))
        self.assertTrue(any(key in counts["keys"] for key in gateway.FAKE_KEYS), counts["keys"])


if __name__ == "__main__":
    gateway.main(__name__)
