"""What the declarations of the losses are made of. Nothing here imports torch when it is loaded."""
