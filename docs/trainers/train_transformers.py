# torchrun --nproc-per-node 2 train_transformers.py OUT MODEL RUN      (after a kill, the same command resumes)
import io
import os
import sys

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from vlmdata import stream
from vlmdata.loader.for_transformers import TrainsOnStream

out, model_name, run = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model_name)


def collate(samples):
    images = [[Image.open(io.BytesIO(sample["jpg"])).convert("RGB")] for sample in samples]
    texts = [processor.image_token + sample["txt"].decode() for sample in samples]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


class StreamTrainer(TrainsOnStream, Trainer):
    pass


trainer = StreamTrainer(
    AutoModelForImageTextToText.from_pretrained(model_name),
    TrainingArguments(
        run, per_device_train_batch_size=2, num_train_epochs=2, save_steps=2, dataloader_num_workers=2, learning_rate=1e-3
    ),
    data_collator=collate,
    train_dataset=stream(out),
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(run) if os.path.isdir(run) else None)
