// Every slot of BaseTransferAgent and TransferStatus, in the order in which a host uses them: two agents in one
// process, canaries around everything returned by value.

#include "host.h"

#include <algorithm>
#include <thread>

namespace host
{
namespace
{

constexpr size_t kBytes = 1 << 20;

// New bytes in the place that is registered.
void refill(std::vector<char>& buffer, unsigned seed)
{
    auto const bytes = pattern(buffer.size(), seed);
    std::copy(bytes.begin(), bytes.end(), buffer.begin());
}

// Polls as the prefill thread does, until `from` has said something. The watchdog of main bounds it.
std::vector<std::string> nextMessages(BaseTransferAgent& agent, std::string const& from)
{
    for (;;)
    {
        Guarded<Notifications> notifications([&] { return agent.getNotifiedSyncMessages(); });
        for (auto const& entry : *notifications)
        {
            CHECK(entry.first == from);
            if (!entry.second.empty())
            {
                return entry.second;
            }
        }
        std::this_thread::yield();
    }
}

std::unique_ptr<TransferStatus> submit(BaseTransferAgent& agent, TransferRequest const& request)
{
    Guarded<std::unique_ptr<TransferStatus>> status([&] { return agent.submitTransferRequests(request); });
    CHECK(*status != nullptr);
    return std::move(*status);
}

void waitForSuccess(TransferStatus& status)
{
#if HOST_AGE <= AGE_P0B
    status.wait();
#else
    CHECK(status.wait() == TransferState::kSUCCESS);
#endif
    CHECK(status.isCompleted());
#if HOST_AGE >= AGE_P2
    CHECK(status.wait(0) == TransferState::kSUCCESS);
    CHECK(status.wait(1000) == TransferState::kSUCCESS);
#endif
#if HOST_AGE >= AGE_P3
    Guarded<std::string> text([&] { return status.getLastStatusStr(); });
    CHECK(text->empty());
    CHECK(status.release());
#endif
}

// What a peer gets of `agent`: its blob, cut out of an AgentDesc whose every part is checked.
std::string blobOf(BaseTransferAgent& agent)
{
    Guarded<AgentDesc> desc([&] { return agent.getLocalAgentDesc(); });
    CHECK(!desc->getBackendAgentDesc().empty());
#if HOST_AGE >= AGE_P3
    CHECK(desc->getVramRegions().empty() && desc->getVramRegions().capacity() == 0);
#endif
#if HOST_AGE >= AGE_P4
    CHECK(desc->getBounceHandshake().empty());
#endif
    return desc->getBackendAgentDesc();
}

} // namespace

void slots()
{
    auto const context = createAgent("ctx0");
    auto const generation = createAgent("gen0");

    auto sent = pattern(kBytes, 1);
    std::vector<char> slot(kBytes);
    context->registerMemory(dram(sent));
    generation->registerMemory(dram(slot));

    // First contact as hosts make it: the decoder by connection info, then prefill by the decoder's blob.
    {
        Guarded<std::string> info([&] { return context->getLocalConnectionInfo(); });
        CHECK(!info->empty());
        generation->loadRemoteAgent("ctx0", *info);
    }
    generation->notifySyncMessage("ctx0", std::string("request\0\xff", 9));
    CHECK(nextMessages(*context, "gen0") == std::vector{std::string("request\0\xff", 9)});
    context->invalidateRemoteAgent("gen0");
    context->loadRemoteAgent("gen0", AgentDesc(blobOf(*generation)));

    CHECK(context->checkRemoteDescs("gen0", dram(slot)));
    CHECK(!context->checkRemoteDescs("gen0", dram(slot, 1, kBytes)));
    CHECK(!context->checkRemoteDescs("nobody", dram(slot)));

    auto const write = submit(*context, {TransferOp::kWRITE, dram(sent), dram(slot), "gen0"});
    waitForSuccess(*write);
    CHECK(slot == sent);
    context->notifySyncMessage("gen0", "done");
    CHECK(nextMessages(*generation, "ctx0") == std::vector<std::string>{"done"});

    // The message of a transfer comes once, after its data.
    refill(sent, 2);
    auto const withMessage = submit(*context, {TransferOp::kWRITE, dram(sent), dram(slot), "gen0", "written"});
    CHECK(nextMessages(*generation, "ctx0") == std::vector<std::string>{"written"});
    CHECK(slot == sent);
    waitForSuccess(*withMessage);

    // Read back what is there now: the submitter's memory is the source list, also for a read.
    refill(slot, 3);
    auto const read = submit(*context, {TransferOp::kREAD, dram(sent), dram(slot), "gen0"});
    waitForSuccess(*read);
    CHECK(sent == slot);

    {
        Guarded<Notifications> nothing([&] { return generation->getNotifiedSyncMessages(); });
        CHECK(nothing->empty());
    }

    context->invalidateRemoteAgent("gen0");
    generation->invalidateRemoteAgent("ctx0");
    context->deregisterMemory(dram(sent));
    generation->deregisterMemory(dram(slot));
}

} // namespace host
