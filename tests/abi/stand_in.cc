// A stand-in for libtensorrt_llm.so: nothing but the symbols by which an age is told (and agent_desc.cc). The
// declarations only have to be mangled like the real ones. STAND_IN_WITHOUT_MANAGER leaves out the one that tells
// P3 from P4.

#include "tensorrt_llm/executor/transferAgent.h"

HOST_NAMESPACE_BEGIN

namespace batch_manager
{
class BaseTransBufferManager;
}

namespace executor::kv_cache
{

class CacheState
{
public:
    struct RnnCacheState
    {
        int layers;
    };

    int layers;
};

#if HOST_AGE >= AGE_P3
void promoteHostLibraryToGlobalScope();
void promoteHostLibraryToGlobalScope() {}
#endif

#if HOST_AGE >= AGE_P2 && !defined(STAND_IN_WITHOUT_MANAGER)
class AgentConnectionManager
{
public:
    AgentConnectionManager(std::vector<batch_manager::BaseTransBufferManager*> buffers, CacheState state,
        std::string const& backend, std::optional<CacheState::RnnCacheState> rnn
#if HOST_AGE >= AGE_P4
        ,
        size_t bufferMb, std::unordered_map<std::string, std::string> bounceParams
#endif
    );
};

AgentConnectionManager::AgentConnectionManager(std::vector<batch_manager::BaseTransBufferManager*>, CacheState,
    std::string const&, std::optional<CacheState::RnnCacheState>
#if HOST_AGE >= AGE_P4
    ,
    size_t, std::unordered_map<std::string, std::string>
#endif
)
{
}
#endif

} // namespace executor::kv_cache

HOST_NAMESPACE_END

// So that a host may need this library, as a real one does.
extern "C" int stand_in_loaded()
{
    return HOST_AGE;
}
