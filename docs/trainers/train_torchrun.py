# torchrun --nproc-per-node 2 train_torchrun.py OUT MODEL RUN      (after a kill, the same command resumes)
import io
import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmdata import stream

out, model_name, run = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model_name)


def collate(samples):
    images = [[Image.open(io.BytesIO(sample["jpg"])).convert("RGB")] for sample in samples]
    texts = [processor.image_token + sample["txt"].decode() for sample in samples]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


torch.distributed.init_process_group()
device = torch.device("cuda", torch.distributed.get_node_local_rank()) if torch.cuda.is_available() else "cpu"
model = torch.nn.parallel.DistributedDataParallel(AutoModelForImageTextToText.from_pretrained(model_name).to(device))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
data = stream(out, batch_size=2, collate_fn=collate)
loader = data.loader(num_workers=2, device=device)
parts, saved = {"model": model, "optimizer": optimizer, "data": loader}, Path(run, "checkpoint.pt")
if saved.exists():
    for name, state in torch.load(saved, map_location=device).items():
        parts[name].load_state_dict(state)
for _ in range(data.epoch, 2):
    for step, batch in enumerate(loader, 1):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 0 and torch.distributed.get_rank() == 0:
            torch.save({name: part.state_dict() for name, part in parts.items()}, f"{saved}.new")
            Path(f"{saved}.new").rename(saved)
