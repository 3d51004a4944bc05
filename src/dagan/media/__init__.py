"""Videos, images and sound in and out; faces found, framed, cut out and pasted back. H x W x 3 uint8 RGB at its borders."""
