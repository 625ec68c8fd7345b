#!/usr/bin/env bash
# "Rethinking ImageNet Pre-training" (He, Girshick, Dollar 2019): both arms on COCO 2017, 8 GPUs of 2 images.
# Target, box AP on val2017, within 0.5 (the paper's rows, Mask R-CNN ResNet-50 with group norms):
#   schedule     2x    3x    4x    5x    6x
#   scratch      36.8  39.5  40.6  40.7  41.3
#   pretrained   40.3  40.8  40.9  40.9  41.1
# Norms are "sync" here, in both arms, because there are no group-norm weights of this network to start from;
# with them a public reproduction from scratch read 40.7 (6x, Faster R-CNN, group norms). Not yet run on a cluster.
# usage: recipes/runs/he2019.sh COCO_FOLDER "SCHEDULES" [more flags], such as coco/ "2 3 4 5 6"
set -euo pipefail
coco=${1:?"usage: $0 COCO_FOLDER SCHEDULES [more flags]"}
read -ra times <<< "${2:?"usage: $0 COCO_FOLDER SCHEDULES [more flags]"}"
shift 2
torchrun --nproc-per-node "${GPUS:-8}" recipes/detect.py --variant he2019 --schedules "${times[@]}" \
  --data "$coco" --backbone timm/resnet50.tv_in1k --init both --seeds 0 --rcnn.masks true \
  --devices "${GPUS:-8}" --batch_size 2 --workers 6 --rcnn.proposals_train 2000 --rcnn.proposals_eval 1000 --out runs/he2019 "$@"
