// The host's terminate flag of one operation, as the engine asks for it.

#pragma once

#include <atomic>

namespace baton
{

// Null where the host's age has no such flag: never set.
class CancelFlag
{
public:
    explicit CancelFlag(std::atomic<bool> const* flag)
        : mFlag{flag}
    {
    }

    bool is_set() const noexcept
    {
        return mFlag != nullptr && mFlag->load(std::memory_order_acquire);
    }

private:
    std::atomic<bool> const* mFlag;
};

} // namespace baton
