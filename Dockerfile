# The demo web app and its workers in one image: copy this file and deploy/ and change the names.
FROM python:3.13-slim

# No tini: process 1 is deploy/start.py, which forwards signals to supervisord, and supervisord reaps orphans.
RUN useradd --create-home --uid 1000 app

# Dependencies first, at their locked versions: this layer changes only when they do.
COPY --from=ghcr.io/astral-sh/uv:0.9 /uv /usr/local/bin/uv
WORKDIR /src
COPY pyproject.toml requirements.lock ./
RUN uv pip install --system --no-cache --requirements pyproject.toml --extra demo --constraints requirements.lock

# Your app would `pip install jobrunner` above, and skip this.
COPY README.md LICENSE ./
COPY consumer consumer
COPY jobrunner jobrunner
RUN uv pip install --system --no-cache --no-deps .

WORKDIR /app
COPY deploy deploy
COPY jobs jobs
COPY web web
RUN mkdir data && chown app data

USER app
ENV PYTHONUNBUFFERED=1 PORT=8000
EXPOSE 8000
# Bad when the web does not answer or a worker is stuck.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "deploy/healthy.py"]
CMD ["python", "deploy/start.py"]
