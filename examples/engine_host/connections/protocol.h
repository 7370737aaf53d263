// What the two phases say to each other over a connection, under TensorRT-LLM's tags. Its messages are the host's
// own business; these are this example's: fields as they lie in memory.
#pragma once

#include <cstdint>
#include <string>

namespace engine_host
{

constexpr int kIdTag = 19;
constexpr int kInfoSizeTag = 22;
constexpr int kInfoTag = 32;
constexpr int kReadySignalTag = 42;
constexpr int kAliveTag = 45; // ours alone

// The data of a request, told from that of the next ones by a few bits of its id.
constexpr int dataTag(uint64_t request)
{
    constexpr int kDataTag = 43;
    return static_cast<int>((request & 0xFFF) << 8) | kDataTag;
}

// Under kIdTag: a RequestInfo follows, its length first.
constexpr uint64_t kRequestSend = 1;

// "Send me this request's KV." The name of who asks follows it.
struct RequestInfo
{
    uint64_t request;
    uint64_t generationRank;
    uint64_t blocks;
};

// "It is there, sending begins."
struct Ready
{
    uint64_t request;
    uint64_t contextRank;
    uint64_t readyNs; // on the clock of monotonicNs()
};

constexpr uint64_t kMaxInfoBytes = sizeof(RequestInfo) + 4096;

} // namespace engine_host
