"""The asr service: speech to text."""
