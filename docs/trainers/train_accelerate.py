# accelerate launch --num_processes 2 train_accelerate.py OUT MODEL RUN      (after a kill, the same command resumes)
import io
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
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


accelerator = Accelerator()
model = AutoModelForImageTextToText.from_pretrained(model_name)
model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
data = stream(out, batch_size=2, collate_fn=collate)
loader = data.loader(num_workers=2, device=accelerator.device)
accelerator.register_for_checkpointing(loader)  # instead of prepare(loader)
if saved := sorted(Path(run).glob("[0-9]*"), key=lambda folder: int(folder.name)):
    accelerator.load_state(saved[-1])
for _ in range(data.epoch, 2):
    for step, batch in enumerate(loader, 1):
        accelerator.backward(model(**batch).loss)
        optimizer.step()
        optimizer.zero_grad()
        if step % 2 == 0:
            accelerator.save_state(f"{run}/{data.position}")
