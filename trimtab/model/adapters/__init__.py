"""Parameter-efficient training methods: adapter layers, and attaching, merging, saving and loading them."""
