"""The model classes that Dify's OpenAI-API-compatible plugin is made of, as the package `dify_plugin` has them, as callers.

Nothing of them is changed but where they count tokens: for that they would fetch the tables of GPT-2. Where a model says what it has
used they do not count at all, and whoever counts here though it was said fails.
"""

# Before all else: it puts its own sockets in the place of Python's.
from dify_plugin.entities.model.message import (
    AssistantPromptMessage,
    ImagePromptMessageContent,
    PromptMessageTool,
    SystemPromptMessage,
    TextPromptMessageContent,
    ToolPromptMessage,
    UserPromptMessage,
)
from dify_plugin.errors.model import CredentialsValidateFailedError, InvokeError
from dify_plugin.interfaces.model.openai_compatible.llm import OAICompatLargeLanguageModel
from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel
from dify_plugin.interfaces.model.openai_compatible.text_embedding import OAICompatEmbeddingModel
from dify_plugin.interfaces.model.openai_compatible.tts import OAICompatText2SpeechModel

import json
import os
import unittest

import gateway

ANSWER = "The tide is in. You said: ping"
SAID = [UserPromptMessage(content="ping")]
TOOL = PromptMessageTool(
    name="tide",
    description="When the tide is high",
    parameters={"type": "object", "properties": {"city": {"type": "string"}, "hour": {"type": "integer"}}},
)


class LargeLanguageModel(OAICompatLargeLanguageModel):
    # Errors are told with the name of the folder that a plugin is in.
    __module__ = "openai_api_compatible.models.llm"

    def _invoke(self, model, credentials, prompt_messages, model_parameters, tools=None, stop=None, stream=True, user=None):
        # As the plugin does, where its user does not forbid it.
        if stream:
            model_parameters = {**model_parameters, "stream_options": {"include_usage": True}}
        return super()._invoke(model, credentials, prompt_messages, model_parameters, tools, stop, stream, user)

    def _get_num_tokens_by_gpt2(self, text):
        raise AssertionError(f"the plugin has to guess how many tokens {text!r} is")


class EmbeddingModel(OAICompatEmbeddingModel):
    def _get_num_tokens_by_gpt2(self, text):
        # It does so for every text before it asks, to cut those that are too long.
        return len(text) // 3


def credentials(model, key=gateway.KEY, **more):
    """What a user types in when he adds a model."""
    return {
        "endpoint_url": gateway.model_url(model),
        "api_key": key,
        "mode": "chat",
        "context_size": "4096",
        "function_calling_type": "tool_call",
        "stream_function_calling": "supported",
        "stream_mode_delimiter": "\\n\\n",
        **more,
    }


class Heard:
    """What a model said, piece by piece or at once."""

    def __init__(self, model, messages=SAID, stream=True, **more):
        parameters = {"temperature": 0.7, "max_tokens": 512}
        said = {"prompt_messages": list(messages), "model_parameters": parameters, "stream": stream, "user": "abc-123", **more}
        chunks = [chunk.delta for chunk in LargeLanguageModel([]).invoke(model, credentials(model), **said)]
        self.chunks = len(chunks)
        self.text = "".join(chunk.message.content or "" for chunk in chunks)
        self.calls = [call for chunk in chunks for call in chunk.message.tool_calls]
        self.finish = chunks[-1].finish_reason
        self.usage = (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens)

    def called(self):
        return [(call.function.name, json.loads(call.function.arguments)["hour"]) for call in self.calls]


class Saving(unittest.TestCase):
    def test_a_chat_model(self):
        LargeLanguageModel([]).validate_credentials("smart", credentials("smart"))

    def test_a_chat_model_that_is_asked_for_a_stream(self):
        LargeLanguageModel([]).validate_credentials("smart", credentials("smart", stream_mode_auth="use"))

    def test_a_completion_model(self):
        LargeLanguageModel([]).validate_credentials("smart", credentials("smart", mode="completion"))

    def test_an_embedding_model(self):
        EmbeddingModel([]).validate_credentials("embed", credentials("embed"))

    def test_a_rerank_model(self):
        OAICompatRerankModel([]).validate_credentials("rerank", credentials("rerank"))

    def test_a_name_in_dify_of_its_own(self):
        LargeLanguageModel([]).validate_credentials("Our model", credentials("smart", endpoint_model_name="smart"))

    def test_a_wrong_key_is_told(self):
        with self.assertRaisesRegex(CredentialsValidateFailedError, "status code 401"):
            LargeLanguageModel([]).validate_credentials("smart", credentials("smart", "tg-nobody"))

    @gateway.through_gateway
    def test_an_unknown_model_is_told(self):
        with self.assertRaisesRegex(CredentialsValidateFailedError, "status code 404"):
            LargeLanguageModel([]).validate_credentials("nobody", credentials("smart"))


class Chat(unittest.TestCase):
    def test_whole(self):
        heard = Heard("smart", stream=False)
        self.assertEqual((heard.text, heard.usage, heard.chunks), (ANSWER, (1, 7), 1))

    def test_stream(self):
        heard = Heard("smart")
        self.assertEqual((heard.text, heard.finish, heard.usage), (ANSWER, "stop", (1, 7)))
        self.assertGreater(heard.chunks, 7)

    def test_a_stream_of_many_scripts(self):
        heard = Heard("unicode")
        self.assertEqual((heard.text, heard.finish), ("die Flut: été, 潮が満ちる, море, 🌊🌙 и всё", "stop"))

    def test_a_picture_and_a_system_message(self):
        picture = ImagePromptMessageContent(format="png", mime_type="image/png", base64_data="iVBORw0KGgo=")
        parts = [TextPromptMessageContent(data="ping"), picture]
        heard = Heard("smart", [SystemPromptMessage(content="Be brief."), UserPromptMessage(content=parts)])
        self.assertEqual((heard.text, heard.finish), (ANSWER, "stop"))


class Tools(unittest.TestCase):
    def test_whole(self):
        self.assertEqual(Heard("smart", stream=False, tools=[TOOL]).called(), [("tide", 6)])

    def test_stream_and_back(self):
        heard = Heard("smart", tools=[TOOL])
        self.assertEqual((heard.called(), heard.finish), ([("tide", 6)], "tool_calls"))
        asked = AssistantPromptMessage(content="", tool_calls=heard.calls)
        answered = ToolPromptMessage(content="06:12", tool_call_id=heard.calls[0].id)
        heard = Heard("smart", [*SAID, asked, answered], tools=[TOOL])
        self.assertEqual((heard.text, heard.finish), (ANSWER, "stop"))


class Failures(unittest.TestCase):
    def test_everything_down(self):
        with self.assertRaisesRegex(InvokeError, "status code 50[0-9]"):
            Heard("gone", stream=False)

    def test_an_error_in_the_stream_is_raised(self):
        # As it is, not as an InvokeError: the plugin is past the place where it makes one of it.
        with self.assertRaisesRegex(ValueError, "message"):
            Heard("fails")

    @gateway.through_gateway
    def test_a_stream_that_breaks_is_not_taken_for_whole(self):
        with self.assertRaisesRegex(ValueError, "message"):
            Heard("breaks")


class Others(unittest.TestCase):
    def test_embeddings_keep_their_order(self):
        def embed(texts):
            result = EmbeddingModel([]).invoke("embed", credentials("embed", max_chunks=2), texts)
            self.assertGreater(result.usage.total_tokens, 0)
            return result.embeddings

        self.assertEqual(embed(["a", "b", "c"]), embed(["a"]) + embed(["b"]) + embed(["c"]))

    def test_rerank(self):
        model, texts = OAICompatRerankModel([]), ["the ebb", "the tide is in", "the harbour"]
        result = model.invoke("rerank", credentials("rerank"), "tide", texts, score_threshold=0.8, top_n=3)
        self.assertEqual([(one.index, one.text) for one in result.docs], [(1, "the tide is in")])

    def test_speech(self):
        speech = OAICompatText2SpeechModel([])
        told = credentials("voice", voices="alloy", audio_format="mp3", word_limit="5000")
        sound = speech.invoke("voice", "tenant", told, "The tide is in.", "alloy")
        self.assertGreater(len(b"".join(sound)), 100)


if __name__ == "__main__":
    try:
        gateway.main(__name__)
    except SystemExit as end:
        # What the package has put in the place of Python's own does not survive an orderly end.
        os._exit(end.code)
