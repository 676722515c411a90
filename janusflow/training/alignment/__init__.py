"""Representation alignment (REPA and its successors): losses and teachers."""
