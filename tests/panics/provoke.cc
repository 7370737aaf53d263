#include "provoke.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace panics
{
namespace
{

struct Provokers
{
    char const* (*call)(size_t);
    void (*panic)(char const*);
    size_t (*left)();
};

Provokers gProvokers;
int gLog = -1;

template <typename Function>
void find(Function& function, char const* name)
{
    function = reinterpret_cast<Function>(::dlsym(host::openLibrary(host::kNixl), name));
    if (function == nullptr)
    {
        std::fprintf(stderr, "the library has no %s: it was built without the feature panics\n", name);
        std::exit(1);
    }
}

// An error that is nobody's business but the reader's.
void require(bool good, std::string const& text)
{
    if (!good)
    {
        std::printf("failed: %s\n", text.c_str());
        std::exit(1);
    }
}

void printLog()
{
    std::fflush(stdout);
    std::printf("--- log ---\n%s", logged().c_str());
}

} // namespace

void findProvokers()
{
    find(gProvokers.call, "baton_test_call");
    find(gProvokers.panic, "baton_test_panic");
    find(gProvokers.left, "baton_test_panics_left");
}

std::map<std::string, std::string> callsOfTheBridge()
{
    std::map<std::string, std::string> calls;
    for (size_t number = 0; gProvokers.call(number) != nullptr; ++number)
    {
        std::string const text = gProvokers.call(number);
        auto const at = text.find('=');
        CHECK(at != std::string::npos);
        CHECK(calls.emplace(text.substr(0, at), text.substr(at + 1)).second);
    }
    return calls;
}

void ask(std::string const& place)
{
    gProvokers.panic(place.c_str());
}

void expectNoneLeft()
{
    require(gProvokers.left() == 0, "a panic that was asked for has not happened");
}

void expectThrown(std::string const& place, std::string const& name, std::function<void()> const& call)
{
    ask(place);
    std::string said;
    try
    {
        call();
    }
    catch (std::runtime_error const& error)
    {
        said = error.what();
    }
    require(!said.empty(), place + ": no error");
    auto const expected = "[baton] " + name + ": internal fault: provoked " + place;
    require(said.find(expected) == 0, place + ": the error is '" + said + "', not '" + expected + "'");
    expectNoneLeft();
}

void expectLogged(std::string const& place, std::string const& name, std::function<void()> const& call)
{
    auto const before = logged().size();
    ask(place);
    try
    {
        call();
    }
    catch (...)
    {
        require(false, place + ": an exception where the host takes none");
    }
    expectNoneLeft();
    auto const lines = logged().substr(before);
    require(lines.find("internal fault") != std::string::npos && lines.find("provoked " + place) != std::string::npos,
        place + ": the log does not name it");
    require(lines.find("call failed where the host takes no error") != std::string::npos
            && lines.find(name) != std::string::npos,
        place + ": the log does not say that " + name + " failed");
}

void captureLog()
{
    char name[] = "/tmp/baton-panics-XXXXXX";
    gLog = ::mkstemp(name);
    CHECK(gLog >= 0 && ::unlink(name) == 0);
    CHECK(::fcntl(gLog, F_SETFL, O_APPEND) == 0 && ::dup2(gLog, STDERR_FILENO) == STDERR_FILENO);
    CHECK(std::atexit(printLog) == 0);
}

std::string logged()
{
    struct stat status
    {
    };
    CHECK(::fstat(gLog, &status) == 0);
    std::string text(static_cast<size_t>(status.st_size), '\0');
    CHECK(::pread(gLog, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
    return text;
}

Agents::Agents()
    : context{host::createAgent("ctx0")}
    , generation{host::createAgent("gen0")}
    , source(kBytes)
    , target(kBytes)
{
    context->registerMemory(host::dram(source));
    generation->registerMemory(host::dram(target));
    context->loadRemoteAgent("gen0", generation->getLocalAgentDesc());
    generation->loadRemoteAgent("ctx0", context->getLocalConnectionInfo());
}

host::TransferRequest Agents::write() const
{
    return {host::TransferOp::kWRITE, host::dram(source), host::dram(target), "gen0"};
}

std::unique_ptr<host::TransferStatus> Agents::done()
{
    auto const bytes = host::pattern(kBytes, ++mSeed);
    std::copy(bytes.begin(), bytes.end(), source.begin()); // where it is registered
    auto status = context->submitTransferRequests(write());
    CHECK(status->wait(-1) == host::TransferState::kSUCCESS);
    CHECK(target == bytes);
    return status;
}

void Agents::move()
{
    CHECK(done()->isCompleted());
}

} // namespace panics
