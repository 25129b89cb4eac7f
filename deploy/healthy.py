"""The container's HEALTHCHECK: the web answers on HEALTH_PATH, which the app must have, and no worker is stuck."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

url = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}{os.environ.get('HEALTH_PATH', '/healthz')}"
try:
    with urllib.request.urlopen(url, timeout=3) as answer:
        print("web:", answer.status)
except OSError as error:
    sys.exit(f"web: {url}: {error}")
# A worker without a file has not reached its queue yet: no reason to take a healthy web down.
files = Path(os.environ.get("RUN_DIR", "/tmp")).glob("worker-*.json")
arguments = [word for file in files for word in ("--status-file", str(file))]
sys.exit(subprocess.run(["jobrunner", "health", *arguments], check=False).returncode if arguments else 0)
