"""Parts of the networks that compute the same as those in `models`, but faster on processors. Training does not need them."""
