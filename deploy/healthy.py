"""The container's HEALTHCHECK: the web answers, and no worker is stuck."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

with urllib.request.urlopen(f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/healthz", timeout=3) as answer:
    print("web:", answer.status)
workers = int(os.environ.get("JOBRUNNER_PROCESSES", "1"))
files = [Path(os.environ.get("RUN_DIR", "/tmp"), f"worker-{number}.json") for number in range(workers)]
arguments = [word for file in files for word in ("--status-file", str(file))]
sys.exit(subprocess.run(["jobrunner", "health", *arguments], check=False).returncode)
