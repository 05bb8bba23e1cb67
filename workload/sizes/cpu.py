"""Sizes for one CPU core and some 20 seconds: a few hundred steps of a model that fits its caches."""

NUM_LAYERS = 2  # blocks
MODEL_WIDTH = 64  # channels of the residual stream
NUM_HEADS = 2  # attention heads per block
HEAD_DIM = 32  # channels per head, even; heads together need not fill the width
WINDOWS = "L"  # all of the context in every block
VALUE_EMBEDDINGS = True  # in every second block
LOGIT_SOFTCAP = 0.0  # logits stay as they are; a cap takes a fifth of a CPU step
RATE_WIDTH = 64  # AdamW's rates are used as they are: too low for so few channels, which leaves room

BATCH_ROWS = 8  # rows of context_length tokens per optimizer step
FORWARD_ROWS = 32  # rows per forward pass, at most; more only costs memory

CLOSING_SECONDS = 0.6  # kept free before the deadline: one slow step, the last checkpoint, the exit
