"""Videos, images and sound are read and written here, and faces are found, framed, cut out and pasted back.

Pictures that other rooms see are H x W x 3 uint8 RGB.
"""
