// What the machine itself can do with a cell: the most that anybody could reach, whatever the protocol. Both sides know
// the cell; nothing is negotiated, checked or acknowledged but its end.

#include "driver.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <optional>
#include <sstream>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <thread>
#include <unistd.h>


namespace bench
{
namespace
{

// Pieces of one side, cut so that a call takes at most IOV_MAX of them and about so many bytes.
constexpr uint64_t kCallBytes = 1 << 20;
constexpr uint64_t kKib = 1 << 10;

// Where a side's address stands, if it is not loopback's.
constexpr char const* kAddressVariable = "BENCH_ADDRESS";
constexpr char const* kLoopback = "127.0.0.1";

struct Call
{
    std::vector<iovec> local;
    std::vector<iovec> remote;
};

std::vector<Call> cut(Cell const& cell, bool isSource, uint64_t local, uint64_t remote, uint64_t bytesMax)
{
    std::vector<Call> calls(1);
    uint64_t bytes = 0;
    for (auto const& piece : cell.pieces)
    {
        for (uint64_t at = 0; at < piece.bytes;)
        {
            if (bytes == bytesMax || calls.back().local.size() == IOV_MAX)
            {
                calls.emplace_back();
                bytes = 0;
            }
            auto const length = std::min(piece.bytes - at, bytesMax - bytes);
            auto const mine = local + (isSource ? piece.source : piece.destination) + at;
            auto const theirs = remote + (isSource ? piece.destination : piece.source) + at;
            calls.back().local.push_back({reinterpret_cast<void*>(mine), length});
            calls.back().remote.push_back({reinterpret_cast<void*>(theirs), length});
            at += length;
            bytes += length;
        }
    }
    return calls;
}

// Two threads that do the calls of a list, whoever is free the next one: the caller and a second one.
class Crew
{
public:
    Crew()
        : mThread{[this] { run(); }}
    {
    }

    ~Crew()
    {
        {
            std::lock_guard const lock(mMutex);
            mIsOver = true;
        }
        mChanged.notify_all();
        mThread.join();
    }

    // Does `act` for 0 to `count` - 1, on `threads` threads.
    void share(size_t count, int threads, std::function<void(size_t)> const& act)
    {
        mNext = 0;
        mCount = count;
        mAct = &act;
        mIsDone = threads < 2;
        if (threads > 1)
        {
            {
                std::lock_guard const lock(mMutex);
                ++mRound;
            }
            mChanged.notify_all();
        }
        work();
        while (!mIsDone)
        {
        }
    }

private:
    void work()
    {
        for (size_t one; (one = mNext.fetch_add(1)) < mCount;)
        {
            (*mAct)(one);
        }
    }

    void run()
    {
        uint64_t seen = 0;
        for (;;)
        {
            {
                std::unique_lock lock(mMutex);
                mChanged.wait(lock, [&] { return mIsOver || mRound != seen; });
                if (mIsOver)
                {
                    return;
                }
                seen = mRound;
            }
            work();
            mIsDone = true;
        }
    }

    std::mutex mMutex;
    std::condition_variable mChanged;
    uint64_t mRound = 0;
    bool mIsOver = false;
    std::atomic<size_t> mNext{0};
    size_t mCount = 0;
    std::function<void(size_t)> const* mAct = nullptr;
    std::atomic<bool> mIsDone{true};
    std::thread mThread;
};

class Socket
{
public:
    explicit Socket(int fd)
        : mFd{fd}
    {
        if (fd < 0)
        {
            failWithErrno("a TCP socket");
        }
    }

    ~Socket()
    {
        ::close(mFd);
    }

    Socket(Socket const&) = delete;
    Socket& operator=(Socket const&) = delete;

    [[nodiscard]] int fd() const
    {
        return mFd;
    }

private:
    int mFd;
};

// Takes `done` bytes off the front of `pieces`, of which the first `first` are gone.
void advance(std::vector<iovec>& pieces, size_t& first, size_t done)
{
    while (done > 0)
    {
        auto& piece = pieces[first];
        auto const part = std::min(done, piece.iov_len);
        piece.iov_base = static_cast<char*>(piece.iov_base) + part;
        piece.iov_len -= part;
        done -= part;
        first += piece.iov_len == 0 ? 1 : 0;
    }
}

// Moves what `io` takes or gives until all of `pieces` is through, and uses them up; asks again and again, as long as it
// must.
template <typename Io>
void pump(std::vector<iovec>& pieces, Io&& io)
{
    for (size_t first = 0; first < pieces.size();)
    {
        msghdr message{};
        message.msg_iov = pieces.data() + first;
        message.msg_iovlen = std::min<size_t>(pieces.size() - first, IOV_MAX);
        auto const moved = io(message);
        if (moved == 0)
        {
            throw Failed("the other side has closed the connection");
        }
        if (moved < 0 && errno != EAGAIN && errno != EINTR)
        {
            failWithErrno("moving bytes over TCP");
        }
        advance(pieces, first, moved > 0 ? static_cast<size_t>(moved) : 0);
    }
}

class LimitDriver : public Driver
{
public:
    // A card: process, address and port. The target listens, the initiator dials.
    std::string open(std::string const& name, Buffer& memory, uint64_t&) override
    {
        mIsInitiator = name == "initiator";
        mScratch = Buffer(mIsInitiator ? memory.size() : 0, false);
        ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); // under Yama, the other side reads and writes our memory
        mListener.emplace(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_ANY);
        socklen_t length = sizeof(address);
        auto* const generic = reinterpret_cast<sockaddr*>(&address);
        if (::bind(mListener->fd(), generic, length) != 0 || ::listen(mListener->fd(), 1) != 0
            || ::getsockname(mListener->fd(), generic, &length) != 0)
        {
            failWithErrno("listening");
        }
        auto const* const ours = std::getenv(kAddressVariable);
        return std::to_string(::getpid()) + ' ' + (ours == nullptr ? kLoopback : ours) + ' '
            + std::to_string(ntohs(address.sin_port));
    }

    void meet(std::string const&, std::string const&, std::string const& card) override
    {
        std::istringstream(card) >> mPeer >> mAddress >> mPort;
        if (mIsInitiator)
        {
            dial();
        }
    }

    void prepare(Cell const& cell, uint64_t local, uint64_t remote) override
    {
        mCalls = cut(cell, mIsInitiator, local, remote, kCallBytes);
        mCell = cell;
        mLocal = local;
        mParcels.clear();
        auto const fits = [this](Piece const& piece) { return piece.destination + piece.bytes <= mScratch.size(); };
        bool const fit = std::all_of(cell.pieces.begin(), cell.pieces.end(), fits);
        mCopies = fit ? cut(cell, true, local, mScratch.address(), kCallBytes) : std::vector<Call>();
    }

    void way(std::string const& name) override
    {
        for (auto const& way : kWays)
        {
            if (name == way.name)
            {
                choose(way);
                return;
            }
        }
        throw Failed("no such way: " + name);
    }

    void post() override {}

    void wait() override
    {
        switch (mWay.kind)
        {
        case Kind::kTcp: sendAll(); break;
        case Kind::kCopy:
            mCrew.share(mCopies.size(), mWay.threads, [this](size_t at) { copy(mCopies[at]); });
            break;
        case Kind::kWrite: shareCalls("process_vm_writev", ::process_vm_writev); break;
        case Kind::kRead: shareCalls("process_vm_readv", ::process_vm_readv); break;
        }
    }

    // The target's share of a move over TCP: takes a cell whenever one comes.
    void serve() override
    {
        if (!mStream)
        {
            mStream.emplace(::accept4(mListener->fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
            polish();
        }
        char byte = 0;
        if (::recv(mStream->fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
        {
            return;
        }
        pumpAll([this](msghdr& message) { return ::recvmsg(mStream->fd(), &message, MSG_DONTWAIT); });
        if (::send(mStream->fd(), &byte, 1, MSG_NOSIGNAL) != 1)
        {
            failWithErrno("acknowledging");
        }
    }

    void close() override
    {
        mStream.reset();
        mListener.reset();
    }

private:
    enum class Kind
    {
        kCopy,  // within the initiator, into memory of its own
        kWrite, // by the initiator, into the target
        kRead,  // by the target, out of the initiator
        kTcp,
    };

    struct Way
    {
        char const* name;
        Kind kind;
        int threads;
        // What a socket is given or asked for at once. Which is best depends on the machine: what stays in the cache until
        // the other side has taken it, and what a call costs.
        uint64_t socketBytes;
    };

    static constexpr std::array<Way, 8> kWays{{
        {"memcpy1", Kind::kCopy, 1, 0},
        {"memcpy2", Kind::kCopy, 2, 0},
        {"writev1", Kind::kWrite, 1, 0},
        {"writev2", Kind::kWrite, 2, 0},
        {"readv1", Kind::kRead, 1, 0},
        {"readv2", Kind::kRead, 2, 0},
        {"512k", Kind::kTcp, 1, 512 * kKib},
        {"2048k", Kind::kTcp, 1, 2048 * kKib},
    }};

    void choose(Way const& way)
    {
        bool const isCut = !mParcels.empty() && mWay.socketBytes == way.socketBytes;
        mWay = way;
        if (way.kind == Kind::kTcp && !isCut)
        {
            mParcels = cut(mCell, mIsInitiator, mLocal, 0, way.socketBytes);
        }
    }

    template <typename Io>
    void pumpAll(Io&& io)
    {
        for (auto const& parcel : mParcels)
        {
            mPending.assign(parcel.local.begin(), parcel.local.end());
            pump(mPending, io);
        }
    }

    static void copy(Call const& call)
    {
        for (size_t at = 0; at < call.local.size(); ++at)
        {
            std::memcpy(call.remote[at].iov_base, call.local[at].iov_base, call.local[at].iov_len);
        }
    }

    template <typename System>
    void shareCalls(char const* name, System&& system)
    {
        mErrno = 0;
        mCrew.share(mCalls.size(), mWay.threads,
            [&](size_t at)
            {
                auto const& [local, remote] = mCalls[at];
                if (system(mPeer, local.data(), local.size(), remote.data(), remote.size(), 0) < 0)
                {
                    mErrno = errno;
                }
            });
        if (mErrno != 0)
        {
            errno = mErrno;
            failWithErrno(name);
        }
    }

    void dial()
    {
        mStream.emplace(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(mPort);
        if (::inet_pton(AF_INET, mAddress.c_str(), &address.sin_addr) != 1)
        {
            throw Failed("'" + mAddress + "' is no address");
        }
        if (::connect(mStream->fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
        {
            failWithErrno("dialing");
        }
        polish();
    }

    void polish()
    {
        int const yes = 1;
        ::setsockopt(mStream->fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    }

    void sendAll()
    {
        pumpAll([this](msghdr& message) { return ::sendmsg(mStream->fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT); });
        char byte = 0;
        ssize_t got = -1;
        while ((got = ::recv(mStream->fd(), &byte, 1, MSG_DONTWAIT)) < 0 && (errno == EAGAIN || errno == EINTR))
        {
        }
        if (got != 1)
        {
            failWithErrno("waiting for the acknowledgement");
        }
    }

    std::optional<Socket> mListener;
    std::optional<Socket> mStream;
    bool mIsInitiator = false;
    pid_t mPeer = 0;
    std::string mAddress;
    uint16_t mPort = 0;
    Way mWay = kWays[0];
    Buffer mScratch;
    Cell mCell;
    uint64_t mLocal = 0;
    std::vector<Call> mCalls;
    std::vector<Call> mParcels;
    std::vector<iovec> mPending;
    std::vector<Call> mCopies;
    std::atomic<int> mErrno{0};
    Crew mCrew;
};

} // namespace
} // namespace bench

int main()
{
    bench::LimitDriver driver;
    return bench::run(driver);
}
