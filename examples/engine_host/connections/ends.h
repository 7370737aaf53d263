// The two ends of seam S3, the connection manager, in TensorRT-LLM's order of calls.
//
//   generation                                context
//       | getConnections                          | a thread in recvConnect
//       |-- id, size of the info, the info ------>|
//       |<-------------------------------- Ready --| once it is prepared
//       |<== the piece ===========================| a thread per receiver
//
// A piece that the slot does not hold goes through its share of the slot in rounds, gathered and scattered on the way.
// The terminate flag, once set, ends every call under way on this end; nothing is sent after it.
#pragma once

#include "connections/channel.h"
#include "connections/crew.h"
#include "connections/manager.h"
#include "connections/protocol.h"
#include "connections/watch.h"
#include "seam.h"

#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace engine_host
{

class ConnectionSender final : public Sender
{
public:
    explicit ConnectionSender(Rank& rank);
    ~ConnectionSender() override;

    std::string connectionInfo() override;
    void turn() override;
    void quit() override;
    size_t asked(uint64_t request) const override;
    void send(Request const& request) override;

private:
    struct Asked
    {
        Channel channel;
        RequestInfo info;
    };

    void acceptAll();
    bool acceptOne();
    Piece const& pieceFor(Asked const& asked, Request const& request) const;
    void sendPiece(Channel const& channel, Piece const& piece, Request const& request);

    Rank& mRank;
    std::atomic<bool> mTerminate{false};
    ConnectionManager mManager;
    Watch mWatch;
    std::map<uint32_t, std::mutex> mShares; // of the slot, by first head: one piece at a time goes in rounds
    mutable std::mutex mMutex;              // guards what follows
    std::map<uint64_t, std::vector<Asked>> mAsked; // by request
    std::exception_ptr mAcceptFailed;
    std::thread mAccepting; // last: it uses all of the above
};

class ConnectionReceiver final : public Receiver
{
public:
    explicit ConnectionReceiver(Rank& rank);
    ~ConnectionReceiver() override;

    std::string connectionInfo() override;
    void turn() override;
    void quit() override;
    void connect(uint32_t contextRank, std::string name, std::string connectionInfo) override;
    std::vector<Delivery> receive(Request const& request) override;

private:
    struct Context
    {
        std::string name;
        std::string connectionInfo;
    };

    std::vector<Channel> connectAll();
    void ask(Channel const& channel, Request const& request);
    Delivery land(Channel const& channel, Piece const& piece, Request const& request);
    void await(Crew& crew, Request const& request);

    Rank& mRank;
    std::atomic<bool> mTerminate{false};
    std::atomic<uint64_t> mLandedNs{0};
    ConnectionManager mManager;
    Watch mWatch;
    std::map<uint32_t, Context> mContexts; // by rank
};

} // namespace engine_host
