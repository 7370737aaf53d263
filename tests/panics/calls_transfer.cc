// Panics in the calls on a transfer, and on a loopback agent.

#include "provoke.h"

#include <unistd.h>

namespace panics
{
namespace
{

using namespace host;

// S2's getter, which S1 has no slot for. NixlTransferStatus is a pointer to the real one behind its own table.
int lastStatusOf(std::unique_ptr<TransferStatus> const& status)
{
    auto const symbol = "_ZNK12tensorrt_llm8executor8kv_cache18NixlTransferStatus13getLastStatusEv";
    auto const found = reinterpret_cast<int (*)(void const*)>(::dlsym(openLibrary(kNixl), symbol));
    CHECK(found != nullptr);
    struct Direct
    {
        void const* table;
        TransferStatus const* status;
    } const direct{nullptr, status.get()};
    return found(&direct);
}

void states(Cases& cases)
{
    cases["Submit"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.context->submitTransferRequests(agents.write()); });
        agents.move();
    };
    cases["State"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const status = agents.done();
        bool over = false;
        provoked.logs([&] { over = status->isCompleted(); });
        CHECK(over); // whoever polls has to leave its loop
        CHECK(status->isCompleted());
    };
    cases["Wait"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const status = agents.context->submitTransferRequests(agents.write());
        provoked.throws([&] { status->wait(-1); });
        CHECK(status->wait(-1) == TransferState::kSUCCESS && agents.source == agents.target);
    };
    cases["Release"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const status = agents.done();
        bool free = true;
        provoked.logs([&] { free = status->release(); });
        CHECK(!free); // nothing is said to be free that nobody has looked at
        CHECK(status->release());
    };
    cases["ErrorText"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const status = agents.done();
        std::string text = "some";
        provoked.logs([&] { text = status->getLastStatusStr(); });
        CHECK(text.empty() && status->getLastStatusStr().empty());
    };
    cases["StatusCode"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const status = agents.done();
        int code = 0;
        provoked.logs([&] { code = lastStatusOf(status); });
        CHECK(code == -8 && lastStatusOf(status) == 0);
    };
    cases["CloseTransfer"] = [](Provocation const& provoked, Agents& agents)
    {
        auto status = agents.context->submitTransferRequests(agents.write());
        provoked.logs([&] { status.reset(); }); // cancelled, or over already: quiet
        agents.context->submitTransferRequests(agents.write()).reset();
    };
}

void loopback(Cases& cases)
{
    auto const open = [] { return create<LoopbackPtr>(kNixl, "createNixlLoopbackAgent", "disk0"); };
    cases["OpenLoopback"] = [open](Provocation const& provoked, Agents&)
    {
        provoked.throws([&] { open(); });
        CHECK(open() != nullptr);
    };
    cases["Execute"] = [open](Provocation const& provoked, Agents&)
    {
        char name[] = "/tmp/baton-loopback-XXXXXX";
        int const file = ::mkstemp(name);
        CHECK(file >= 0 && ::unlink(name) == 0);
        auto const bytes = pattern(5000, 3);
        auto const agent = open();
        auto const write = [&]
        {
            std::vector<FileDesc> files;
            files.emplace_back(::dup(file), bytes.size());
            agent->executeLoopbackRequest(dram(bytes), FileDescs(std::move(files)), true);
        };
        provoked.throws(write);
        write();
        std::vector<char> found(bytes.size());
        CHECK(::pread(file, found.data(), found.size(), 0) == static_cast<ssize_t>(found.size()) && found == bytes);
        CHECK(::close(file) == 0);
    };
}

} // namespace

void addTransferCalls(Cases& cases)
{
    states(cases);
    loopback(cases);
}

} // namespace panics
