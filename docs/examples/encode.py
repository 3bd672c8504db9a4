"""Compare an image with captions: python docs/examples/encode.py MODEL IMAGE CAPTION [CAPTION ...]"""

import sys

import torch
from PIL import Image

from bimodal_cl.models import load_model

model, image, *captions = sys.argv[1:]
encoder = load_model(model)  # a run, an export, an open_clip or a Hugging Face model

with torch.inference_mode():
    image_features = encoder.encode_image(encoder.preprocess(Image.open(image))[None])
    text_features = encoder.encode_text(captions)

for similarity, caption in sorted(zip((image_features @ text_features.T)[0].tolist(), captions, strict=True))[::-1]:
    print(f"{similarity:.3f}  {caption}")
