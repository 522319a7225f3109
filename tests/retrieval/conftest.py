"""A tiny embedding for the logic of index and search."""

from hashing_encoder import encoder, encoder_type, make_document

__all__ = ["encoder", "encoder_type", "make_document"]
