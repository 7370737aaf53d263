// Memory of a GPU, as an engine rank has it.
#pragma once

#include "memory.h"

namespace engine_host
{

// Throws Failure(kDevice) that says what the driver does not do.
std::unique_ptr<Memory> makeDeviceMemory(uint64_t lengthBytes, MemoryChoice const& choice);

} // namespace engine_host
