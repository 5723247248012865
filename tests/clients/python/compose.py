"""What ../../../examples/dify/ has for Docker Compose names only what is there: services, volumes, files and secrets."""

import pathlib
import re
import tomllib
import unittest
from urllib.parse import urlsplit

import yaml

import gateway

HERE = pathlib.Path(__file__).parent
EXAMPLE = HERE.joinpath("../../../examples/dify").resolve()
CONFIG = EXAMPLE.joinpath("tidegate.toml").read_text()
TOLD = set(re.findall(r"^([A-Z_]+)=", EXAMPLE.joinpath(".env.example").read_text(), re.MULTILINE))


def read(name):
    text = EXAMPLE.joinpath(name).read_text()
    return text, yaml.safe_load(text)


def sources(service):
    """What of its volumes is no path."""
    volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
    return {volume for volume in volumes if not volume.startswith((".", "/", "$"))}


class Files(unittest.TestCase):
    def test_what_a_service_names_is_there(self):
        for name in ["compose.yaml", "overlay.yaml"]:
            _, file = read(name)
            services = file["services"]
            # Those of the file that the overlay lies over.
            others = {"plugin_daemon", "web"} if name == "overlay.yaml" else set()
            for service in services.values():
                self.assertLessEqual(set(service.get("depends_on", [])), set(services) | others)
                self.assertLessEqual(sources(service), set(file["volumes"]))
                self.assertLessEqual(set(service.get("networks", [])), {"default", *file.get("networks", {})})
                for config in service.get("configs", []):
                    self.assertIn(config["source"], file["configs"])
                image = service.get("image")
                self.assertTrue(image is None or re.fullmatch(r"[\w./-]+:[\w.-]+", image), image)

    def test_no_service_is_told_nothing(self):
        _, file = read("compose.yaml")
        self.assertEqual(len(file["services"]), 12)
        for name, service in file["services"].items():
            self.assertTrue("image" in service or "build" in service, name)

    def test_what_is_asked_of_the_operator_is_named(self):
        for name in ["compose.yaml", "overlay.yaml"]:
            text, _ = read(name)
            self.assertLessEqual(set(re.findall(r"\$\{([A-Z_]+)", text)) - {"EXPOSE_NGINX_PORT"}, TOLD)

    def test_the_gateway_gets_its_secrets(self):
        wanted = set(re.findall(r'"\$([A-Z_]+)"', CONFIG))
        for name in ["compose.yaml", "overlay.yaml"]:
            _, file = read(name)
            self.assertEqual(set(file["services"]["tidegate"]["environment"]), wanted)

    def test_the_gateway_asks_whom_there_is(self):
        _, file = read("compose.yaml")
        installation = tomllib.loads(CONFIG)["dify"]["main"]
        hosts = {urlsplit(address).hostname for address in installation.values() if str(address).startswith("http")}
        self.assertEqual(hosts, {"api", "web", "plugin_daemon"})
        self.assertLessEqual(hosts, set(file["services"]))
        self.assertNotIn("nginx", file["services"])

    def test_what_is_built_is_there(self):
        _, file = read("compose.yaml")
        build = file["services"]["tidegate"]["build"]
        tree = EXAMPLE.joinpath(build["context"])
        self.assertTrue(tree.joinpath(build["dockerfile"]).is_file())
        self.assertTrue(tree.joinpath("Cargo.lock").is_file())


if __name__ == "__main__":
    gateway.main(__name__)
