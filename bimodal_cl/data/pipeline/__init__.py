"""The stages that turn a schedule into batches."""
