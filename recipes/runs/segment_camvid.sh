#!/usr/bin/env bash
# CamVid, both arms for the same number of images, scored on the test split at native size.
#   recipes/runs/segment_camvid.sh FOLDER [more flags of segment.py]
# FOLDER holds {train,val,test}/{images,masks} at 480 x 360. 50 minutes of one CPU core an arm.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
data="${1:?give the folder of CamVid}"
shift
python "$here/segment.py" --data "$data" --classes "$here/runs/camvid_classes.txt" --seeds 0 --images 14560 \
  --crop 256 320 --augment.scale 0.7 1.6 --batch_size 4 --decoder unet --head.channels 192 --loss "ce + dice" --class_weights 0.5 \
  --lr 3e-3 --augment.photometric 0.5 --optim.schedule cosine --optim.weight_decay 0.02 --optim.ema 0.9 \
  --validate_every 4 --out runs/camvid "$@"
