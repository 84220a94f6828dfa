"""Models of what people want: judges and comparers. It knows texts and numbers, no training loop."""
