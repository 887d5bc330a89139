# torchrun --nproc-per-node 2 train_lightning.py OUT MODEL RUN      (after a kill, the same command resumes)
import io
import sys

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlmdata import stream
from vlmdata.loader.for_lightning import StreamData

out, model_name, run = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model_name)


def collate(samples):
    images = [[Image.open(io.BytesIO(sample["jpg"])).convert("RGB")] for sample in samples]
    texts = [processor.image_token + sample["txt"].decode() for sample in samples]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


class Captioner(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = AutoModelForImageTextToText.from_pretrained(model_name).train()

    def training_step(self, batch):
        return self.model(**batch).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


data = StreamData(stream(out, batch_size=2, collate_fn=collate), num_workers=2)
checkpoints = ModelCheckpoint(run, every_n_train_steps=2, save_last=True)
trainer = lightning.Trainer(devices=2, max_epochs=2, callbacks=[checkpoints], default_root_dir=run)
trainer.fit(Captioner(), datamodule=data, ckpt_path="last")
