"""ECHO, the database: Automerge documents, the objects in them, and their replication with one peer at a time."""
