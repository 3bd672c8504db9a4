"""Write a dual encoder in the formats of other libraries, and compare its features with what they compute."""
