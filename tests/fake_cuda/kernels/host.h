// The product's kernels (src/device/kernels), compiled for the CPU.
//
// A launch runs to its end on the thread that makes it; several threads may launch at once.

#pragma once

#include <cstdint>

extern "C"
{
// How the kernels reach memory: takes an address as lists name it to one that the CPU may touch, or to 0 where the
// device has no such memory. It is asked for the first and the last byte of every span, and for the entries of the list
// itself; what lies between has to be contiguous on both sides. Without one (null, as at first) addresses stay as they
// are.
void baton_host_set_address(uint64_t (*translate)(uint64_t));

// Runs kernel `name` on `gridX` blocks of `blockX` threads (a multiple of 32); `params` as for cuLaunchKernel.
// 0: it ran; 1: there is no such kernel, or no such launch; 2: it stopped at an address that the device does not have;
// 3: it stopped at an access that a GPU would refuse as misaligned.
int baton_host_launch(char const* name, unsigned gridX, unsigned blockX, void** params);
}
