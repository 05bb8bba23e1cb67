"""Sizes for one H100-class GPU, five minutes and 2,048 tokens of context.

Parameters: 12 · 8 · 512² = 25.2 M in the blocks, 2 · 8,192 · 512 = 8.4 M in embedding and head, 33.6 M in all.
A step is 256 · 2,048 = 524,288 tokens.
Memory: a pass over 64 rows is 131,072 tokens. Saved activations are about 17 bf16 values per channel,
token and block (18 GB), the logits with their gradient about 10 GB, weights with optimizer state 0.5 GB:
below 40 GB together.
"""

NUM_LAYERS = 8  # blocks
MODEL_WIDTH = 512  # channels of the residual stream
NUM_HEADS = 4  # attention heads per block
HEAD_DIM = 128  # channels per head, even; the widest head for which fast attention kernels are at full speed

BATCH_ROWS = 256  # rows of context_length tokens per optimizer step
FORWARD_ROWS = 64  # rows per forward pass; the gradients of several passes add up to one step

CLOSING_SECONDS = 3.0  # kept free before the deadline: one slow step, the last checkpoint, the exit
