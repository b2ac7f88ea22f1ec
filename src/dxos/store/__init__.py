"""Storage of one profile: SQLite for documents, rows, feeds, metadata and invitations; files for private keys."""
