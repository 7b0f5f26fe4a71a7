"""Audio as int16 mono PCM: codecs, resampling, mixing, concealment, denoising, recording."""
