"""Hugging Face folders of image-text models as dual encoders."""
