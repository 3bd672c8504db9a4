"""Load Hugging Face folders of image-text models (CLIP, SigLIP) as dual encoders."""
