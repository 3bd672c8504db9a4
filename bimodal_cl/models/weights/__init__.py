"""Read, write and match the weights of models: our own, open_clip's, OpenAI's and transformers'."""
