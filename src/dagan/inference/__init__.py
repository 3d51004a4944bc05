"""What jobs that run a trained model share: the model behind plain arrays, batches, colour maps, progress, early checks."""
