// What the two phases say to each other, as notifications of the transfer agent.
//
// The roles follow TensorRT-LLM's: the generation side asks with the place for the data (and, the first time, its
// agent descriptor), the context side answers ready, writes, and says done. The encoding is this example's own:
// a kind byte, then little-endian fields; strings and lists carry a u64 length.
#pragma once

#include "memory.h"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace engine_host
{

// "Send me this request's KV, and put it there." TensorRT-LLM: RequestAndBufferInfo.
struct RequestAndBufferInfo
{
    uint64_t request;
    uint64_t generationRank;
    uint64_t address;              // the piece's place in the slot, or the base of the pool
    uint64_t lengthBytes;          // the piece's length, or the pool's
    MemoryKind memory;             // of what kind that is,
    uint32_t device;               // and of which GPU; 0 for DRAM
    std::vector<uint32_t> blocks;  // the blocks in the pool; empty when staged
    std::string metadata;          // the backend part of our agent descriptor, on first contact
};

// "It is there, writing begins." TensorRT-LLM: ReadySignal.
struct ReadySignal
{
    uint64_t request;
    uint64_t contextRank;
};

// "All of it has been written." TensorRT-LLM: NotificationSyncInfo.
struct DoneNotification
{
    uint64_t request;
    uint64_t contextRank;
    uint64_t submittedNs; // CLOCK_MONOTONIC, which processes on one machine share
    uint64_t lengthBytes;
    uint64_t descriptors;
};

// "I am still here": says nothing, but sending it fails when the peer is gone.
struct Alive
{
};

using Message = std::variant<RequestAndBufferInfo, ReadySignal, DoneNotification, Alive>;

std::string encode(Message const& message);

// Throws Failure(kProtocol) for anything that encode() does not make.
Message decode(std::string const& bytes);

} // namespace engine_host
