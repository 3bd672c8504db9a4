"""Hand a trained model over to other libraries: formats, model card, upload to the Hugging Face hub."""
