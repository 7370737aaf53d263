// A submitted transfer, as the host holds it. Destroying an unfinished one cancels it.

#pragma once

#include "abi/provider.h"
#include "baton/src/ffi/bridge.rs.h"

namespace baton
{

class TransferStatus final : public abi::kv_cache::TransferStatus
{
public:
    TransferStatus(abi::HostAge age, ::rust::Box<bridge::SeamTransfer> transfer);
    ~TransferStatus() override;

    [[nodiscard]] bool isCompleted() const override;

    // To P1: waits for the end, whatever the argument says, and throws when the transfer failed, because a void
    // wait has no other way to say so. From P2: as the argument says, and failure is a state.
    abi::kv_cache::TransferState wait(int64_t timeout_ms) const override;

    [[nodiscard]] bool release() override;
    [[nodiscard]] std::string getLastStatusStr() const override;

    // As a nixl_status_t: 0 success, 1 in progress, negative: why it failed.
    [[nodiscard]] int lastStatus() const noexcept;

private:
    abi::HostAge const mAge;
    ::rust::Box<bridge::SeamTransfer> mTransfer;
};

} // namespace baton
