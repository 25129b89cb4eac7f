# The demo web app and its workers in one image. docs/aws.md has a Dockerfile for your app, and what else it needs.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml ./
# Dependencies first, at their locked versions: this layer changes only when they do.
RUN pip install --no-cache-dir --constraint requirements.lock uv \
 && uv venv /venv \
 && uv pip install --python /venv --no-cache --requirements pyproject.toml --extra demo --constraints requirements.lock
# Your app would name jobrunner's wheel (`make wheel`) among its requirements, and skip this: docs/aws.md, step 2.
# Not `pip install jobrunner`: on PyPI that is somebody else's.
COPY README.md LICENSE ./
COPY consumer consumer
RUN uv pip install --python /venv --no-cache --no-deps . \
 && python -m compileall -q -j 0 /venv/lib

FROM python:3.13-slim
# No tini: process 1 is deploy/start.py, which passes signals on to supervisord and reaps orphans.
# /app/data is where compose mounts its volume; the demo itself writes to /tmp, as a read-only container can.
RUN useradd --create-home --uid 1000 app && mkdir -p /app/data && chown app /app/data
WORKDIR /app
COPY --from=build /venv /venv
COPY deploy deploy
COPY jobs jobs
COPY web web
# Compiled here, as the libraries above, and not at each start: other users than root could not keep it.
RUN python -m compileall -q deploy jobs web
# Where supervisorctl looks by itself: `docker exec CONTAINER supervisorctl restart jobrunner:*`
RUN ln -s /app/deploy/supervisord.conf /etc/supervisord.conf
USER app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PORT=8000 APP_DIR=/app RUN_DIR=/tmp DEMO_DATA=/tmp/demo JOBRUNNER_PROCESSES=1
EXPOSE 8000
# Bad when the web does not answer on HEALTH_PATH (/healthz), or a worker is stuck. ECS does not look at this line:
# its task definition has a healthCheck of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["python", "deploy/healthy.py"]
CMD ["python", "deploy/start.py"]
