// Makes transfer agents, for the factories (S1) and for the class that Python's binding constructs (S2).
//
// No type of the host's is named here, so that one function serves hosts of either spelling of the namespace. The
// pointers are those of objects whose vtables are the seam's: each caller knows them as its own abi::TransferAgent
// and kv_cache::TransferStatus.

#pragma once

#include <cstdint>

namespace baton
{

// An agent, and the age of the host that it serves (abi::HostAge).
struct MadeAgent
{
    uint8_t age;
    void* agent; // an abi::TransferAgent, owned by the caller
};

// Reads the host's BaseAgentConfig as far as its age has fields. Throws std::runtime_error, also where the host
// is none that Baton knows; `caller` is what the host has called, for the log.
MadeAgent makeTransferAgent(char const* caller, void const* config, bool isNixl);

// Cancels and drains what is under way, says goodbye to peers; later calls throw. Idempotent.
void shutDown(void* agent) noexcept;

// Where a transfer of such an agent stands, as a nixl_status_t: hosts log it.
int lastStatus(void const* status) noexcept;

} // namespace baton
