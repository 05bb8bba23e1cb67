import os
import time
from pathlib import Path

import torch

from workload import STARTED_AT
from workload.checkpoint import publish
from workload.model import BATCH, LEARNING_RATE, TIME_BUDGET, WEIGHT_DECAY, Loader, TinyGPT, lr_at

torch.manual_seed(int(os.environ["SEED"]))
device = "cuda" if torch.cuda.is_available() else "cpu"
model = TinyGPT().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
shards = sorted(Path(os.environ["DATA_DIR"]).glob("shard-*.bin"))
train_loader = Loader(shards, BATCH, device)

step = 0
while True:
    progress = (time.monotonic() - STARTED_AT) / TIME_BUDGET
    if progress >= 1.0:
        break
    for group in optimizer.param_groups:
        group["lr"] = lr_at(progress)
    x, y = train_loader.next()
    loss = model(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if step % 50 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
    step += 1

publish(lambda path: torch.save(model.state_dict(), path))
