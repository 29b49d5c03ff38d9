"""VGG-19's layers on CPU in float32: kernels and their preallocated buffers."""
