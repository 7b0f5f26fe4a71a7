"""The tts service: text to speech."""
