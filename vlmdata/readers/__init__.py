"""Other people's files as rows: tables, JSON, tars, folders, conversations, image bytes."""
