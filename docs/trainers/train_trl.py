# torchrun --nproc-per-node 2 train_trl.py OUT MODEL RUN      (after a kill, the same command resumes)
import io
import os
import sys

from PIL import Image
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from vlmdata import stream
from vlmdata.loader.for_transformers import TrainsOnStream

out, model_name, run = sys.argv[1:]


def conversation(sample):
    question = {"role": "user", "content": "Describe the picture."}
    answer = {"role": "assistant", "content": sample["txt"].decode()}
    return {"prompt": [question], "completion": [answer], "images": [Image.open(io.BytesIO(sample["jpg"])).convert("RGB")]}


class StreamTrainer(TrainsOnStream, SFTTrainer):
    pass


trainer = StreamTrainer(
    model_name,
    SFTConfig(
        run, per_device_train_batch_size=2, num_train_epochs=2, save_steps=2, dataloader_num_workers=2, learning_rate=1e-3
    ),
    train_dataset=stream(out, decode=conversation),
)
trainer.train(resume_from_checkpoint=get_last_checkpoint(run) if os.path.isdir(run) else None)
