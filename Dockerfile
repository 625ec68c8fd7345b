# visionkit with its recipes in /workspace/recipes: the image of recipes/cluster/kubernetes.yaml. From a checkout:
#
#   docker build --tag registry.example.com/visionkit:0.1.0 .
#   docker run --gpus all --shm-size 16g --volume "$PWD/runs:/runs" registry.example.com/visionkit:0.1.0 \
#     visionkit run compare --out /runs/compare
#
# torch from the package index brings CUDA; the machine brings the driver. Without a GPU leave --gpus out.
FROM python:3.12-slim-bookworm

# A compiler for --compile. Debian keeps no old versions, so that one by number would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

WORKDIR /workspace
COPY pyproject.toml README.md LICENSE ./
COPY visionkit visionkit
COPY recipes recipes
# The versions are those that pyproject.toml admits.
ARG EXTRAS=demo,export,fast,loggers
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[${EXTRAS}]"
