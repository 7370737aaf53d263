// Shows which bytes of the host's memory the library writes when the host constructs, uses and destroys its
// NixlTransferAgent there.

#include "module.h"

#include <cstring>
#include <vector>

namespace
{

constexpr int kPoison = 0xA5;
constexpr size_t kMargin = 4096; // before and behind the object

// The object and its margins, after the constructor and after the destructor.
nb::tuple lifeInPoisonedMemory(kvc::BaseAgentConfig const& config)
{
    std::vector<std::byte> memory(kMargin + sizeof(kvc::NixlTransferAgent) + kMargin);
    poison(memory.data(), memory.size());
    auto const bytes = [&] { return nb::bytes(memory.data(), memory.size()); };
    auto* const agent = new (memory.data() + kMargin) kvc::NixlTransferAgent(config);
    auto const constructed = bytes();
    agent->~NixlTransferAgent();
    return nb::make_tuple(constructed, bytes());
}

// With `new` and `delete`, as C++ code of a host would: the size that `delete` passes on must not be ours.
void lifeOnTheHeap(kvc::BaseAgentConfig const& config)
{
    kvc::BaseTransferAgent* const agent = new kvc::NixlTransferAgent(config);
    delete agent;
}

} // namespace

void poison(void* memory, size_t len)
{
    std::memset(memory, kPoison, len);
}

void bindStorage(nb::module_& m)
{
    m.def("life_in_poisoned_memory", &lifeInPoisonedMemory, nb::arg("config"));
    m.def("life_on_the_heap", &lifeOnTheHeap, nb::arg("config"));
    m.attr("AGENT_BYTES") = sizeof(kvc::NixlTransferAgent);
    m.attr("MARGIN_BYTES") = kMargin;
    m.attr("POISON") = kPoison;
}
