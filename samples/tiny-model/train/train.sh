#!/bin/sh
# Both stages, one GPU: sh train.sh OUT_DIR
set -e
here=$(dirname "$0")
python3 "$here/train.py" --stage 1 --out "$1/stage1" --save-master --eval none
python3 "$here/train.py" --stage 2 --out "$1" --init "$1/stage1/master" --tokenizer "$1/stage1/tokenizer.json" --save-master
