"""Sizes for an 80 GB card: H100, A100; five minutes, 2,048 tokens of context."""

NUM_LAYERS = 8  # blocks
MODEL_WIDTH = 512  # channels of the residual stream
NUM_HEADS = 4  # attention heads per block
HEAD_DIM = 128  # channels per head, even; the widest head for which fast attention kernels are at full speed
WINDOWS = "SSSL"  # S(hort) or L(ong), block by block, repeated; the last block is always long
VALUE_EMBEDDINGS = True  # in every second block
LOGIT_SOFTCAP = 15.0  # logits stay between ± this; 0 leaves them as they are
RATE_WIDTH = 768  # AdamW's rates are those for so many channels, and go with 1/sqrt(channels)

BATCH_ROWS = 256  # rows of context_length tokens per optimizer step
FORWARD_ROWS = 64  # rows per forward pass; the gradients of several passes add up to one step

CLOSING_SECONDS = 3.0  # kept free before the deadline: one slow step, the last checkpoint, the exit
