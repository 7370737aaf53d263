#include "seam.h"

#include "agent/ends.h"

namespace engine_host
{

std::unique_ptr<Sender> makeSender(Rank& rank)
{
    return std::make_unique<AgentSender>(rank);
}

std::unique_ptr<Receiver> makeReceiver(Rank& rank)
{
    return std::make_unique<AgentReceiver>(rank);
}

} // namespace engine_host
