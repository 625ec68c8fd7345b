"""Words: tokens, vocabularies and word vectors."""
