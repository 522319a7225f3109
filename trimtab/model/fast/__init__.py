"""Faster forwards for transformers' modules: `patch.accelerate` installs them, `patch.decelerate` removes them."""
