"""Retrieval: chunking, embedding, indexing and search of documents, and extractive answers."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Document, Hit, Passage
    from trimtab.data.documents import read_below
    from trimtab.retrieval.chunk import chunk_document
    from trimtab.retrieval.embed import Embedder
    from trimtab.retrieval.extract import Extractor
    from trimtab.retrieval.index import Index
    from trimtab.retrieval.rerank import Reranker
    from trimtab.retrieval.search import hybrid_search
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "trimtab.base.records": ("Document", "Hit", "Passage"),
            "trimtab.data.documents": ("read_below",),
            "trimtab.retrieval.chunk": ("chunk_document",),
            "trimtab.retrieval.embed": ("Embedder",),
            "trimtab.retrieval.extract": ("Extractor",),
            "trimtab.retrieval.index": ("Index",),
            "trimtab.retrieval.rerank": ("Reranker",),
            "trimtab.retrieval.search": ("hybrid_search",),
        },
    )

__all__ = [
    "Document",
    "Embedder",
    "Extractor",
    "Hit",
    "Index",
    "Passage",
    "Reranker",
    "chunk_document",
    "hybrid_search",
    "read_below",
]
