// What the files of the module share.

#pragma once

#include "nixl_transfer_agent.h"

#include <nanobind/nanobind.h>

namespace nb = nanobind;
namespace kvc = tensorrt_llm::executor::kv_cache;

// Fills memory with the value that a test looks for: what still has it has not been written.
void poison(void* memory, size_t len);

// storage.cc
void bindStorage(nb::module_& m);
