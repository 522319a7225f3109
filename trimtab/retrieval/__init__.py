"""Retrieval: chunking, embedding, indexing and search of documents, and extractive answers."""

from typing import TYPE_CHECKING

from trimtab.base.lazy import lazy_names

if TYPE_CHECKING:
    from trimtab.base.records import Document as Document
    from trimtab.base.records import Hit as Hit
    from trimtab.base.records import Passage as Passage
    from trimtab.data.documents import read_below as read_below
    from trimtab.retrieval.chunk import chunk_document as chunk_document
    from trimtab.retrieval.embed import Embedder as Embedder
    from trimtab.retrieval.extract import Extractor as Extractor
    from trimtab.retrieval.index import Index as Index
    from trimtab.retrieval.rerank import Reranker as Reranker
    from trimtab.retrieval.search import hybrid_search as hybrid_search
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
