"""Retrieval: chunking, embedding, indexing and search of documents, and extractive answers."""
