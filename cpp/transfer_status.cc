#include "transfer_status.h"

#include "errors.h"

namespace baton
{

using abi::kv_cache::TransferState;

TransferStatus::TransferStatus(abi::HostAge age, ::rust::Box<bridge::SeamTransfer> transfer)
    : mAge{age}
    , mTransfer{std::move(transfer)}
{
}

TransferStatus::~TransferStatus()
{
    orLog(
        "~TransferStatus", [this] { return bridge::close_transfer(std::move(mTransfer)), true; }, false);
}

bool TransferStatus::isCompleted() const
{
    // Over is over: a caller that polls has to leave its loop on a failure too, and asks wait() which it was.
    return orLog(
        "isCompleted",
        [this] { return static_cast<TransferState>(mTransfer->state()) != TransferState::kIN_PROGRESS; }, true);
}

TransferState TransferStatus::wait(int64_t timeout_ms) const
{
    constexpr int64_t kUntilOver = -1;
    auto const state = orThrow(
        [&]
        {
            auto const timeout = abi::hasTimedWait(mAge) ? timeout_ms : kUntilOver;
            return static_cast<TransferState>(mTransfer->wait(timeout));
        });
    if (state == TransferState::kFAILURE && !abi::hasTimedWait(mAge))
    {
        throw std::runtime_error("[baton] " + getLastStatusStr());
    }
    return state;
}

bool TransferStatus::release()
{
    return orLog(
        "release", [this] { return mTransfer->release(); }, false);
}

std::string TransferStatus::getLastStatusStr() const
{
    return orLog(
        "getLastStatusStr", [this] { return std::string(mTransfer->error_text()); }, std::string());
}

int TransferStatus::lastStatus() const noexcept
{
    constexpr int kUnknownError = -8; // NIXL_ERR_UNKNOWN
    return orLog(
        "getLastStatus", [this] { return mTransfer->status_code(); }, kUnknownError);
}

} // namespace baton
