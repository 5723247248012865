"""Dify's own client for Python, the package `dify-client`, unchanged, as a caller of apps."""

import json
import unittest

from dify_client import ChatClient, CompletionClient
from dify_client.client import DifyClient

import gateway

USER = "abc-123"


def client(kind, app, key=None):
    made = kind(key or gateway.app_key(app))
    # It has no other way to say so.
    made.base_url = gateway.app_url(app)
    return made


def events(response):
    response.raise_for_status()
    lines = [line.decode("utf-8") for line in response.iter_lines() if line.startswith(b"data:")]
    return [json.loads(line.removeprefix("data:")) for line in lines]


def answer(said):
    return "".join(event["answer"] for event in said if event["event"] == "message")


class Chat(unittest.TestCase):
    def test_a_conversation(self):
        chat = client(ChatClient, "chat")
        first = chat.create_chat_message({}, "one", USER).json()
        self.assertEqual(first["answer"], "You said: one")
        conversation = first["conversation_id"]
        second = events(chat.create_chat_message({}, "two", USER, "streaming", conversation_id=conversation))
        self.assertEqual(answer(second), "You said: two (turn 2, after: one)")
        self.assertEqual(second[-1]["event"], "message_end")
        listed = chat.get_conversation_messages(USER, conversation).json()["data"]
        self.assertEqual([item["query"] for item in listed], ["one", "two"])
        self.assertIn(conversation, [item["id"] for item in chat.get_conversations(USER).json()["data"]])
        self.assertEqual(chat.rename_conversation(conversation, "tides", USER).status_code, 200)
        self.assertEqual(chat.message_feedback(first["message_id"], "like", USER).json(), {"result": "success"})

    def test_it_is_stopped(self):
        # The package has no call of its own for this.
        chat = client(ChatClient, "chat")
        task = chat.create_chat_message({}, "one", USER).json()["task_id"]
        told = chat._send_request("POST", f"/chat-messages/{task}/stop", {"user": USER})
        self.assertEqual(told.json(), {"result": "success"})

    def test_what_an_app_wants(self):
        self.assertIn("user_input_form", client(DifyClient, "chat").get_application_parameters(USER).json())

    def test_a_wrong_key(self):
        told = client(ChatClient, "chat", "tg-nobody").create_chat_message({}, "one", USER)
        self.assertEqual((told.status_code, told.json()["code"]), (401, "unauthorized"))


class Others(unittest.TestCase):
    def test_a_completion(self):
        completion = client(CompletionClient, "completion")
        inputs = {"query": "Hi"}
        self.assertEqual(completion.create_completion_message(inputs, "blocking", USER).json()["answer"], "You said: Hi")
        self.assertEqual(answer(events(completion.create_completion_message(inputs, "streaming", USER))), "You said: Hi")

    def test_a_workflow(self):
        # The package is older than workflows: it is asked as its users ask it.
        workflow = client(DifyClient, "workflow")
        body = {"inputs": {"text": "Hi"}, "response_mode": "blocking", "user": USER}
        ran = workflow._send_request("POST", "/workflows/run", body).json()
        self.assertEqual((ran["data"]["status"], ran["data"]["outputs"]), ("succeeded", {"result": "You said: Hi"}))

    def test_a_file(self):
        uploader = client(DifyClient, "chat")
        upload = uploader.file_upload(USER, {"file": ("tide.txt", "high at six 🌊".encode(), "text/plain")})
        self.assertEqual((upload.status_code, upload.json()["name"]), (201, "tide.txt"))
        # The id that came back belongs to this app, and goes with a message.
        file = {"type": "document", "transfer_method": "local_file", "upload_file_id": upload.json()["id"]}
        told = client(ChatClient, "chat").create_chat_message({}, "one", USER, files=[file])
        self.assertEqual(told.status_code, 200, told.text)


if __name__ == "__main__":
    gateway.main(__name__)
