"""Where the clients find what they talk to, and how their results are told.

TIDEGATE_URL          the gateway, started with ../tidegate.toml
TIDEGATE_KEY          the key of its consumer `clients`
TIDEGATE_LIMITED_KEY  the key of its consumer `limited`
CLIENTS_…_KEY         the keys of its other consumers
TIDEGATE_DIFY_URL     where its Dify routes begin; TIDEGATE_URL/apps if absent
TIDEGATE_FAKES_URL    the fakes behind it, to see what reached them; those checks are left out if absent
TIDEGATE_DIRECT=1     TIDEGATE_URL is tidegate-fakes itself: shows that the fakes are what the clients expect
"""

import os
import sys
import unittest

URL = os.environ["TIDEGATE_URL"].rstrip("/")
DIRECT = os.environ.get("TIDEGATE_DIRECT") == "1"
KEY = "sk-fake-direct" if DIRECT else os.environ["TIDEGATE_KEY"]
LIMITED_KEY = KEY if DIRECT else os.environ["TIDEGATE_LIMITED_KEY"]
THRIFTY_KEY, COUNTED_KEY, GUESSED_KEY = (
    KEY if DIRECT else os.environ[f"CLIENTS_{name}_KEY"] for name in ["THRIFTY", "COUNTED", "GUESSED"]
)
DIFY_URL = os.environ.get("TIDEGATE_DIFY_URL", URL + "/apps").rstrip("/")
FAKES_URL = URL if DIRECT else os.environ.get("TIDEGATE_FAKES_URL")
FAKE_KEYS = ["sk-fake-clients", "sk-fake-direct"]

# Which fake stands behind a model of ../tidegate.toml.
MODES = {
    "smart": "ok",
    "lucky": "ok",
    "plain": "ok",
    "embed": "ok",
    "voice": "ok",
    "rerank": "ok",
    "gone": "503",
    "breaks": "cut-mid-3",
    "fails": "error-chunk",
    "unicode": "unicode+split-chars",
    "slow": "slow-400ms",
    "limited": "429",
    "unknown": "ok",
    "talks": "chunks-2000",
}


def model_url(model):
    """The base URL under which `model` is asked for, its version included."""
    return f"{URL}/openai/{MODES[model]}/v1" if DIRECT else f"{URL}/v1"


def app_url(app):
    """The base URL of a Dify app, its version included."""
    return f"{URL}/dify/pings/v1" if DIRECT else f"{DIFY_URL}/{app}/v1"


def app_key(app):
    """The key with which a Dify app is called."""
    return f"app-{app}-direct" if DIRECT else KEY


through_gateway = unittest.skipIf(DIRECT, "there is no gateway between")
sees_fakes = unittest.skipUnless(FAKES_URL, "the fakes cannot be asked")


def main(module):
    """Plays the tests of `module`. Ends with the counts, and badly if nothing was played."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[module])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    passed = max(result.testsRun - failed - skipped, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(0 if passed and result.wasSuccessful() else 1)
