"""Tensors in, tensor out: VGG-19, losses, optimisers and the coarse-to-fine loop.

Nothing here knows of files (but the weights file), configuration, jobs or logs, and
nothing is imported but torch, torchvision and the standard library.
"""
