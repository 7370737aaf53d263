// All kernels, as one translation unit: nvcc and NVRTC make one PTX of it.

#include "copy.cu"
#include "transform.cu"
