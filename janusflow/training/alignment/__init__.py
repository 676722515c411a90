"""Representation alignment (REPA and its successors): losses, teachers and similarity measures."""
