"""The page a person opens afterwards: one self-contained HTML file, and the model card."""
