// AgentDesc on the wire, as the host's library writes and reads it: a string, a count and as many GPU regions of
// three numbers, and at P4 another string. Numbers are of 8 bytes, a string is its length and its bytes.

#include "tensorrt_llm/executor/transferAgent.h"

#if HOST_AGE >= AGE_P3

#include <cstring>
#include <stdexcept>

namespace
{

void put(std::string& out, size_t number)
{
    out.append(reinterpret_cast<char const*>(&number), sizeof(number));
}

void put(std::string& out, std::string const& text)
{
    put(out, text.size());
    out += text;
}

class Reader
{
public:
    explicit Reader(std::string const& data)
        : mData(data)
    {
    }

    size_t number()
    {
        size_t number;
        std::memcpy(&number, take(sizeof(number)), sizeof(number));
        return number;
    }

    std::string text()
    {
        auto const len = number();
        return {take(len), len};
    }

    void expectEnd() const
    {
        if (mAt != mData.size())
        {
            throw std::runtime_error("AgentDesc: bytes behind its end");
        }
    }

private:
    char const* take(size_t len)
    {
        if (len > mData.size() - mAt)
        {
            throw std::runtime_error("AgentDesc: ends too early");
        }
        auto const* const from = mData.data() + mAt;
        mAt += len;
        return from;
    }

    std::string const& mData;
    size_t mAt{0};
};

} // namespace

HOST_NAMESPACE_BEGIN

namespace executor::kv_cache
{

std::string AgentDesc::serialize() const
{
    std::string out;
    put(out, mBackendAgentDesc);
    put(out, mVramRegions.size());
    for (auto const& region : mVramRegions)
    {
        put(out, region.baseAddr);
        put(out, region.totalLen);
        put(out, region.chunkSize);
    }
#if HOST_AGE >= AGE_P4
    put(out, mBounceHandshake);
#endif
    return out;
}

AgentDesc AgentDesc::deserialize(std::string const& data)
{
    Reader reader(data);
    AgentDesc desc(reader.text());
    for (auto left = reader.number(); left > 0; --left)
    {
        auto const baseAddr = reader.number();
        auto const totalLen = reader.number();
        desc.mVramRegions.push_back({baseAddr, totalLen, reader.number()});
    }
#if HOST_AGE >= AGE_P4
    desc.mBounceHandshake = reader.text();
#endif
    reader.expectEnd();
    return desc;
}

} // namespace executor::kv_cache

HOST_NAMESPACE_END

#endif
