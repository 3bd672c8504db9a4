"""A loss in a plain training loop, with random pairs in the place of images and captions."""

import torch
from torch.nn.functional import normalize

from bimodal_cl.losses import build_loss

torch.manual_seed(0)
num_images, batch_size = 256, 32
image_inputs, text_inputs = torch.randn(num_images, 40), torch.randn(num_images, 20)
image_tower, text_tower = torch.nn.Linear(40, 16), torch.nn.Linear(20, 16)

# One caption per image here, so an image and its caption have the same id.
sizes = {"num_images": num_images, "num_texts": num_images}
loss = build_loss("isogclr", **sizes, tau_init=0.05, rho=1.0, eta=0.003)
parameters = [*image_tower.parameters(), *text_tower.parameters(), *loss.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=1e-2)

num_steps = 40
for step in range(num_steps):
    ids = torch.randperm(num_images)[:batch_size]
    image_features = normalize(image_tower(image_inputs[ids]), dim=1)
    text_features = normalize(text_tower(text_inputs[ids]), dim=1)

    loss.set_progress(step / num_steps)  # only schedules read it
    out = loss(image_features, text_features, ids, ids)
    optimizer.zero_grad()
    out.loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"step {step}: loss {out.loss.item():.4f}, mean tau of images {out.metrics['tau_image'].item():.4f}")

print(loss.text_anchors.tau[:5])  # one temperature per caption; loss.state_dict() holds them
