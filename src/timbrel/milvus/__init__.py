"""The index on a Milvus server, which several machines share, or in a file of this one (milvus-lite)."""
