"""Bitmaps of any size on numpy: words, bits, pages of memory."""
