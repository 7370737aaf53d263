// What a launch is given: the lists that src/device/kernels.rs writes, laid out here and there alike.
//
// An address in a list is one that the device of the launch can use: of its own memory, of a mapping, or of pinned host
// memory. No byte that a launch writes may be read or written by another entry of the same launch.

#pragma once

#ifdef __CUDACC_RTC__ // has no standard headers
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <cstdint>
#endif

// `len` bytes from `src` to `dst`, each at any alignment.
struct BatonSegment
{
    uint64_t src;
    uint64_t dst;
    uint64_t len;
};

// Where head 0 of token 0 of a block lies on each side.
struct BatonBlock
{
    uint64_t src;
    uint64_t dst;
};

// The rows of a block, in bytes: `heads` times `tokens` rows of `row_bytes`. Row (head, token) lies
// head * head_stride + token * token_stride behind the block's address, on each side by its own strides.
struct BatonRows
{
    uint64_t src_head_stride;
    uint64_t src_token_stride;
    uint64_t dst_head_stride;
    uint64_t dst_token_stride;
    uint32_t heads;
    uint32_t tokens;
    uint32_t row_bytes;
    uint32_t reserved;
};

static_assert(sizeof(BatonSegment) == 24, "src/device/kernels.rs lays it out so");
static_assert(sizeof(BatonBlock) == 16, "src/device/kernels.rs lays it out so");
static_assert(sizeof(BatonRows) == 48, "src/device/kernels.rs lays it out so");
