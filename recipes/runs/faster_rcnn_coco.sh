#!/usr/bin/env bash
# Faster R-CNN, ResNet-50 with a feature pyramid, COCO 2017, 26 epochs on 8 GPUs of 2 images each.
# Target: 37.0 box AP on val2017 (torchvision's fasterrcnn_resnet50_fpn), within 0.5. Not yet run on a cluster.
# The rate is cut after epochs 16 and 22: for the last 1,172,660 and 469,064 images.
# usage: recipes/runs/faster_rcnn_coco.sh COCO_FOLDER [more flags]
set -euo pipefail
coco=${1:?"usage: $0 COCO_FOLDER [more flags]"}
shift
torchrun --nproc-per-node "${GPUS:-8}" recipes/detect.py \
  --data "$coco" --backbone timm/resnet50.tv_in1k --init pretrained --seeds 0 \
  --devices "${GPUS:-8}" --batch_size 2 --workers 6 --epochs 26 --validate_every 2 \
  --image_size 800 --pyramid_channels 256 --rcnn.anchor_scales 8 --rcnn.proposals_train 2000 --rcnn.proposals_eval 1000 \
  --transfer.norm frozen --transfer.freeze_through 4 \
  --lr 0.02 --optim.optimizer sgd --optim.batch 16 --optim.weight_decay 1e-4 --optim.warmup 0.005 \
  --optim.schedule steps --optim.milestones_before_end '[1172660,469064]' \
  --out runs/faster_rcnn_coco "$@"
