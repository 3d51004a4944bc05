"""Training: stage 1 (depth, METHOD section 2), stage 2 (generator, METHOD section 7), and the loop they share."""
