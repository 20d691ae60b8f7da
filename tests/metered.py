"""Servers with metrics, and what a scraper sees of them."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterable

import grpc
from prometheus_client.parser import text_string_to_metric_families

from oracle_server.errors import Reason
from oracle_server.threat_model import POLICY
from tests.serving import Server

__all__ = ["METERED", "Figures", "change", "figures", "foreign", "metrics_address", "scrape", "until"]

METERED = ("--max-rows", "64", "--batch", "16", "--metrics-port", "0")
Figures = dict[tuple[str, ...], float]  # by the name of a sample and its labels, each as label=value


def metrics_address(server: Server) -> str:
    """host:port of the metrics."""
    address: str = json.loads((server.root / "server.json").read_text())["metrics"]
    return address


def scrape(server: Server, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{metrics_address(server)}{path}", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def figures(server: Server) -> Figures:
    """All samples but those of the process itself."""
    found: Figures = {}
    for family in text_string_to_metric_families(scrape(server)):
        for sample in family.samples:
            name = (sample.name, *sorted(f"{label}={value}" for label, value in sample.labels.items()))
            assert name not in found
            if not sample.name.startswith("process_"):
                found[name] = sample.value
    return found


def change(server: Server, calls: Callable[[], object]) -> Figures:
    """What calls change in the figures, without those that are times."""
    before = figures(server)
    calls()
    after = figures(server)
    assert not set(before) - set(after)
    changes = {name: value - before.get(name, 0) for name, value in after.items()}
    return {name: by for name, by in changes.items() if by and not re.search("_seconds_(sum|bucket)", name[0])}


def foreign(text: str, models: Iterable[str]) -> set[str]:
    """Words in a scrape that are neither metrics' names nor methods, statuses, reasons, models or bounds of buckets."""
    seconds, rows = "queue_seconds forward_seconds ledger_commit_seconds", "batch_rows waiting_rows charged_rows"
    names = {f"mirage_{name}" for name in f"requests refusals retries {seconds} {rows}".split()}
    values = {"rpc": set(POLICY), "reason": {reason.name for reason in Reason}, "model": set(models)}
    values["status"] = {status.name for status in grpc.StatusCode}
    found = set()
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("process_"):
            found |= {family.name} - names
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label == "le":
                    float(value)
                elif value not in values.get(label, ()):
                    found.add(value)
    return found


def until(true: Callable[[], bool]) -> None:
    """Wait for what is about to be so."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
