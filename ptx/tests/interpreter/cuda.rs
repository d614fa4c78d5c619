//! CUDA C++ through NVRTC.
