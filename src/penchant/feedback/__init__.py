"""What people said: records, reading, checking, pairing. It knows rows and files, no tokenizer and no model."""
