"""The publisher's side of retrieval: whether assistants can read, find and cite what a site says."""
