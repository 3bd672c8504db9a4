"""Print the first training batch of a folder of shards: python docs/examples/read_stream.py FOLDER"""

import sys

from bimodal_cl.data import Manifest, open_stream

folder = sys.argv[1]
manifest = Manifest.load(folder)
print(f"{manifest.num_images} images and {manifest.num_texts} captions in {len(manifest.shards)} shards")

for batch in open_stream(folder, batch_size=8, image_size=64, seed=0, epoch=0):
    print(batch.images.shape, batch.images.dtype)  # torch.Size([8, 3, 64, 64]) torch.uint8
    for image_id, text_id, text in zip(batch.image_ids.tolist(), batch.text_ids.tolist(), batch.texts, strict=True):
        print(image_id, text_id, text)
    break
