"""File extensions of images and of their texts."""

IMAGE_EXTENSIONS = frozenset(["avif", "bmp", "gif", "jfif", "jpeg", "jpg", "png", "tif", "tiff", "webp"])
UNREAD_IMAGE_EXTENSIONS = frozenset(["exr", "hdr", "heic", "heif", "hif", "ico", "j2k", "jp2", "jxl", "psd", "qoi"])
CAPTION_EXTENSIONS = ("txt", "text", "caption")
TEXT_EXTENSIONS = (*CAPTION_EXTENSIONS, "json")  # text_chars is the length of a sample's first text in this order
