"""Videos as frames with times: decoding in a separate process, choice of frames, colours, subtitles."""
