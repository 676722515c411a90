"""Does representation alignment help on the small world? (docs/alignment.md)"""
