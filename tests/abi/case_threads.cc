// One agent used by several threads at once, as TensorRT-LLM does: send workers submit and notify while the
// response thread polls. Every message arrives once, and its worker's data before it.

#include "host.h"

#include <algorithm>
#include <atomic>
#include <thread>

namespace host
{
namespace
{

constexpr int kWorkers = 4;
constexpr int kRounds = 25;
constexpr size_t kSlice = 64 * 1024;

// The message of a round, and where it comes from.
std::string messageOf(int worker, int round)
{
    return std::to_string(worker) + ":" + std::to_string(round);
}

} // namespace

void threads()
{
    auto const context = createAgent("ctx0");
    auto const generation = createAgent("gen0");
    std::vector<char> sent(kWorkers * kSlice), received(kWorkers * kSlice);
    context->registerMemory(dram(sent));
    generation->registerMemory(dram(received));
    context->loadRemoteAgent("gen0", generation->getLocalAgentDesc());

    // A worker writes its next round only when the reader has checked the one before.
    std::atomic<int> checked[kWorkers] = {};
    auto const work = [&](int worker)
    {
        size_t const offset = worker * kSlice;
        for (int round = 0; round < kRounds; ++round)
        {
            auto const bytes = pattern(kSlice, worker * kRounds + round);
            std::copy(bytes.begin(), bytes.end(), sent.begin() + offset);
            auto const status = context->submitTransferRequests(
                {TransferOp::kWRITE, dram(sent, offset, kSlice), dram(received, offset, kSlice), "gen0"});
            status->wait();
            context->notifySyncMessage("gen0", messageOf(worker, round));
            while (checked[worker] <= round)
            {
                std::this_thread::yield();
            }
        }
    };
    std::vector<std::thread> workers;
    for (int worker = 0; worker < kWorkers; ++worker)
    {
        workers.emplace_back(work, worker);
    }

    for (int seen = 0; seen < kWorkers * kRounds;)
    {
        for (auto const& entry : generation->getNotifiedSyncMessages())
        {
            CHECK(entry.first == "ctx0");
            for (auto const& message : entry.second)
            {
                int const worker = message.at(0) - '0';
                int const round = checked[worker];
                CHECK(message == messageOf(worker, round));
                auto const wanted = pattern(kSlice, worker * kRounds + round);
                CHECK(std::equal(wanted.begin(), wanted.end(), received.begin() + worker * kSlice));
                ++checked[worker];
                ++seen;
            }
        }
        std::this_thread::yield();
    }
    for (auto& worker : workers)
    {
        worker.join();
    }
    CHECK(sent == received);
}

} // namespace host
