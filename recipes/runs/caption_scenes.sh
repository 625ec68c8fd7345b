#!/usr/bin/env bash
# The embedded scenes: both arms, fine-tuning, self-critical training, and what positions do.
#   recipes/runs/caption_scenes.sh [more flags of caption.py]
# Each arm of 15 epochs takes 6 to 10 minutes of one CPU core, self-critical epochs about twice that of the others.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
run() { python "$here/caption.py" --precision 32-true "$@"; }
run --epochs 15 --out runs/caption-both "$@"
run --epochs 15 --out runs/caption-finetuned --init pretrained --transfer.freeze_through 0 "$@"
run --epochs 15 --out runs/caption-no-positions --attention.positions false "$@"
run --epochs 6 --out runs/caption-cross-entropy --init pretrained "$@"
run --epochs 6 --out runs/caption-critic --init pretrained --self_critical.start_images 7936 "$@"
