// The two ends of seam S1, the transfer agent, in TensorRT-LLM's order of calls.
//
//   generation                         context
//       |-- RequestAndBufferInfo -------->|
//       |                                 | first contact: invalidate, load
//       |<------------------ ReadySignal--|
//       |<== one-sided WRITE =============| submit, wait
//       |<------------- DoneNotification--|
#pragma once

#include "agent/endpoint.h"
#include "seam.h"

#include <map>
#include <string>
#include <vector>

namespace engine_host
{

class AgentSender final : public Sender
{
public:
    explicit AgentSender(Rank& rank);

    std::string connectionInfo() override;
    void turn() override;
    void quit() override {}
    size_t asked(uint64_t request) const override;
    void send(Request const& request) override;

private:
    struct Asked
    {
        std::string peer;
        RequestAndBufferInfo info;
    };

    struct Sending;

    void takeIn(Received received);
    Sending prepare(Request const& request, Asked const& asked);
    void await(kv::TransferStatus const& status, std::string const& peer);

    Rank& mRank;
    Endpoint mEndpoint;
    std::map<uint64_t, std::vector<Asked>> mAsked; // by request
};

class AgentReceiver final : public Receiver
{
public:
    explicit AgentReceiver(Rank& rank);

    std::string connectionInfo() override;
    void turn() override;
    void quit() override {}
    void connect(uint32_t contextRank, std::string name, std::string connectionInfo) override;
    std::vector<Delivery> receive(Request const& request) override;

private:
    struct Context
    {
        std::string name;
        std::string connectionInfo;
    };

    struct Landing
    {
        uint64_t request;
        size_t ready = 0;
        std::vector<Delivery> done;
    };

    void ask(Piece const& piece, Request const& request);
    bool takeIn();
    void takeIn(Received const& received);
    void awaitAll();

    Rank& mRank;
    Endpoint mEndpoint;
    std::map<uint32_t, Context> mContexts; // by rank
    std::optional<Landing> mLanding;
};

} // namespace engine_host
