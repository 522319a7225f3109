"""Faster forwards for transformers' modules: `patch.accelerate` puts them on, `patch.decelerate` takes them off."""
