# The image of deploy/rayjob.yaml and deploy/skypilot.yaml: docker build -t <registry>/orchestrate:0.2.0 .
FROM python:3.11-slim
# KubeRay runs wget to ask Ray's nodes for their health.
RUN apt-get update -q && apt-get install -y -q --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 ray
WORKDIR /home/ray/orchestrate
# The packages first: they are most of the image, and stay as they are while the code changes.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir orchestrator search_spaces trainers && touch orchestrator/__init__.py search_spaces/__init__.py trainers/__init__.py \
    && pip install --no-cache-dir --constraint constraints.txt --editable .
COPY --chown=ray orchestrator orchestrator
COPY --chown=ray search_spaces search_spaces
COPY --chown=ray trainers trainers
USER ray
ENV RAY_USAGE_STATS_ENABLED=0
