#include "seam.h"

#include "agent/ends.h"
#include "connections/ends.h"

namespace engine_host
{

std::unique_ptr<Sender> makeSender(Rank& rank)
{
    if (rank.options.library.seam == Seam::kConnections)
    {
        return std::make_unique<ConnectionSender>(rank);
    }
    return std::make_unique<AgentSender>(rank);
}

std::unique_ptr<Receiver> makeReceiver(Rank& rank)
{
    if (rank.options.library.seam == Seam::kConnections)
    {
        return std::make_unique<ConnectionReceiver>(rank);
    }
    return std::make_unique<AgentReceiver>(rank);
}

} // namespace engine_host
