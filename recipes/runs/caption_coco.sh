#!/usr/bin/env bash
# COCO captions, Karpathy's splits: the published numbers that caption.py's variants aim at.
#   recipes/runs/caption_coco.sh VARIANT FOLDER [more flags of caption.py]
# FOLDER holds dataset_coco.json (Karpathy's splits), train2014/ and val2014/. VARIANT and its target on the test
# split (CIDEr times 100; sources in caption.py):
#   show_and_tell      frozen CNN, about 79; BLEU-4 about 26
#   show_attend_tell   frozen CNN, soft attention
#   finetune_cnn       CNN fine-tuned after a third, about 95; BLEU-4 about 30
#   att2in_scst        self-critical in the last third, about 104
# 8 to 30 hours of one current GPU each. The score is test/cider of result.json times 100, beam 5.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
variant="${1:?give a variant: show_and_tell, show_attend_tell, finetune_cnn or att2in_scst}"
data="${2:?give the folder of COCO}"
shift 2
visionkit check "$data"
python "$here/caption.py" --variant "$variant" --data "$data" --seeds 0 --workers 8 --out "runs/coco-$variant" "$@"
