"""Training: stage 1 (depth, docs/method.md#stage-1), stage 2 (generator, docs/method.md#stage-2), and the loop that both share."""
