// How a rank ends badly: a kind for programs, a text for people, an exit code for both.
#pragma once

#include <stdexcept>
#include <string>

namespace engine_host
{

enum class FailureKind
{
    kUsage,          // the command line, the config or a command cannot be followed
    kLibrary,        // the transfer library could not be opened, or refused to serve
    kPeerLost,       // the other side is gone
    kTransferFailed, // a transfer ended in failure
    kTimeout,        // nothing was heard for too long
    kProtocol,       // the other side said something that makes no sense
    kDevice          // the GPU or its driver does not do what this rank was told to use it for
};

constexpr char const* name(FailureKind kind)
{
    switch (kind)
    {
    case FailureKind::kUsage: return "usage";
    case FailureKind::kLibrary: return "library";
    case FailureKind::kPeerLost: return "peer-lost";
    case FailureKind::kTransferFailed: return "transfer-failed";
    case FailureKind::kTimeout: return "timeout";
    case FailureKind::kProtocol: return "protocol";
    case FailureKind::kDevice: return "device";
    }
    return "unknown";
}

// 2 for usage, 3 for library, and so on; 1 is kept for "corrupt bytes found".
constexpr int exitCode(FailureKind kind)
{
    return 2 + static_cast<int>(kind);
}

class Failure : public std::runtime_error
{
public:
    Failure(FailureKind kind, std::string const& text, std::string peer = {})
        : std::runtime_error(text)
        , mKind(kind)
        , mPeer(std::move(peer))
    {
    }

    FailureKind kind() const
    {
        return mKind;
    }

    // The agent it is about; empty where it is about no peer.
    std::string const& peer() const
    {
        return mPeer;
    }

private:
    FailureKind mKind;
    std::string mPeer;
};

// Not a failure: whoever drives this rank has closed its standard input.
struct Stopped
{
};

} // namespace engine_host
