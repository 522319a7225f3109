"""`torchrun -m trimtab train`: processes train one arm together, its records are those of one process, and what cannot
be divided or does not agree is refused in one line."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from answering_models import quick  # noqa: F401
from safetensors.torch import load_file
from study_tasks import CLASSIFY, LABELLED, QUICK, write_task

ROOT = Path(__file__).parents[2]
