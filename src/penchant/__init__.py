"""penchant aligns models with what people prefer."""

__version__ = "0.1.0"
