"""Find a trained model by its name: on disk, among open_clip's published weights, or on the Hugging Face hub."""
