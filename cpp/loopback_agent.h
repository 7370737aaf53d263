// The loopback agent that the factory hands to the host: memory to files and back.

#pragma once

#include "abi/provider.h"
#include "baton/src/ffi/bridge.rs.h"

namespace baton
{

class LoopbackAgent final : public abi::kv_cache::BaseLoopbackAgent
{
public:
    explicit LoopbackAgent(::rust::Box<bridge::SeamLoopback> agent);

    void executeLoopbackRequest(abi::kv_cache::MemoryDescs const& memoryDescs,
        abi::kv_cache::FileDescs const& fileDescs, bool isOffload) override;

private:
    ::rust::Box<bridge::SeamLoopback> mAgent;
};

} // namespace baton
