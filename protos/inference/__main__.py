"""Rewrite the stub that the generator has left here."""

from __future__ import annotations

from pathlib import Path

from protos.inference import apart

path = Path(__file__).with_name("open_inference_pb2.py")
path.write_text(apart(path.read_text()))
