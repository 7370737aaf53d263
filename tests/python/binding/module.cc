// tensorrt_llm_transfer_agent_binding: a Python module with the shape of TensorRT-LLM's own, for tests and for the
// engine host that plays its Python runtime. Like the host's it is linked against libtensorrt_llm_nixl_wrapper.so
// and libtensorrt_llm.so, declares NixlTransferAgent with the host's size, and constructs it in Python's memory.
//
// Not the host's: the submodule `storage`, with which a test sees what a constructor writes (storage.cc), and that
// the memory of every agent is filled with 0xA5 before it is constructed.

#include "module.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unordered_map.h>
#include <nanobind/stl/vector.h>

#include <dlfcn.h>

namespace
{

using ReleaseGil = nb::call_guard<nb::gil_scoped_release>;
using Addresses = nb::ndarray<int64_t const, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Devices = nb::ndarray<int32_t const, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void bindEnums(nb::module_& m)
{
    nb::enum_<kvc::MemoryType>(m, "MemoryType")
        .value("DRAM", kvc::MemoryType::kDRAM)
        .value("VRAM", kvc::MemoryType::kVRAM)
        .value("BLK", kvc::MemoryType::kBLK)
        .value("OBJ", kvc::MemoryType::kOBJ)
        .value("FILE", kvc::MemoryType::kFILE);
    nb::enum_<kvc::TransferOp>(m, "TransferOp")
        .value("READ", kvc::TransferOp::kREAD)
        .value("WRITE", kvc::TransferOp::kWRITE);
    nb::enum_<kvc::TransferState>(m, "TransferState")
        .value("IN_PROGRESS", kvc::TransferState::kIN_PROGRESS)
        .value("SUCCESS", kvc::TransferState::kSUCCESS)
        .value("FAILURE", kvc::TransferState::kFAILURE);
}

// `device(i)` is the device of the i-th piece.
template <typename Device>
kvc::MemoryDescs descsFrom(kvc::MemoryType type, Addresses const& addrs, Addresses const& sizes, Device&& device)
{
    std::vector<kvc::MemoryDesc> descs;
    descs.reserve(addrs.shape(0));
    for (size_t i = 0; i < addrs.shape(0); ++i)
    {
        descs.emplace_back(
            static_cast<uintptr_t>(addrs.data()[i]), static_cast<size_t>(sizes.data()[i]), device(i));
    }
    return {type, std::move(descs)};
}

void bindDescs(nb::module_& m)
{
    nb::class_<kvc::MemoryDesc>(m, "MemoryDesc")
        .def(nb::init<uintptr_t, size_t, uint32_t>(), nb::arg("addr"), nb::arg("len"), nb::arg("device_id"))
        .def_prop_ro("addr", &kvc::MemoryDesc::getAddr)
        .def_prop_ro("len", &kvc::MemoryDesc::getLen)
        .def_prop_ro("device_id", &kvc::MemoryDesc::getDeviceId);

    using Tuple = std::tuple<uintptr_t, size_t, uint32_t>;
    nb::class_<kvc::MemoryDescs>(m, "MemoryDescs")
        .def(nb::init<kvc::MemoryType, std::vector<kvc::MemoryDesc>>(), nb::arg("type"), nb::arg("descs"))
        .def(
            "__init__",
            [](kvc::MemoryDescs* self, kvc::MemoryType type, std::vector<Tuple> const& tuples)
            {
                std::vector<kvc::MemoryDesc> descs;
                descs.reserve(tuples.size());
                for (auto const& [addr, len, device] : tuples)
                {
                    descs.emplace_back(addr, len, device);
                }
                new (self) kvc::MemoryDescs(type, std::move(descs));
            },
            nb::arg("type"), nb::arg("tuples"))
        .def_static(
            "from_arrays",
            [](kvc::MemoryType type, Addresses const& addrs, Addresses const& sizes, Devices const& devices)
            {
                return descsFrom(
                    type, addrs, sizes, [&](size_t i) { return static_cast<uint32_t>(devices.data()[i]); });
            },
            nb::arg("type"), nb::arg("addrs"), nb::arg("sizes"), nb::arg("device_ids"))
        .def_static(
            "from_arrays_uniform_device",
            [](kvc::MemoryType type, Addresses const& addrs, Addresses const& sizes, uint32_t device)
            { return descsFrom(type, addrs, sizes, [=](size_t) { return device; }); },
            nb::arg("type"), nb::arg("addrs"), nb::arg("sizes"), nb::arg("device_id"))
        .def_prop_ro("type", &kvc::MemoryDescs::getType)
        .def_prop_ro("descs", &kvc::MemoryDescs::getDescs);
}

nb::bytes bytesOf(std::string const& text)
{
    return nb::bytes(text.data(), text.size());
}

void bindAgentDesc(nb::module_& m)
{
    nb::class_<kvc::AgentDesc>(m, "AgentDesc")
        .def(
            "__init__",
            [](kvc::AgentDesc* self, nb::bytes data)
            { new (self) kvc::AgentDesc{std::string(data.c_str(), data.size())}; },
            nb::arg("backend_agent_desc"))
        .def(nb::init<std::string>(), nb::arg("backend_agent_desc"))
        .def_prop_ro(
            "backend_agent_desc", [](kvc::AgentDesc const& self) { return bytesOf(self.getBackendAgentDesc()); })
#if HOST_AGE >= AGE_P3
        .def("serialize", [](kvc::AgentDesc const& self) { return bytesOf(self.serialize()); })
        .def_static(
            "deserialize",
            [](nb::bytes data) { return kvc::AgentDesc::deserialize(std::string(data.c_str(), data.size())); },
            nb::arg("data"))
#endif
        ;
}

// As the host's: the lists are moved out of the Python objects, which are empty afterwards.
void bindRequest(nb::module_& m)
{
    nb::class_<kvc::TransferRequest>(m, "TransferRequest")
        .def(
            "__init__",
            [](kvc::TransferRequest* self, kvc::TransferOp op, kvc::MemoryDescs& src, kvc::MemoryDescs& dst,
                std::string const& remoteName, std::optional<std::string> message) {
                new (self) kvc::TransferRequest(op, std::move(src), std::move(dst), remoteName, std::move(message));
            },
            nb::arg("op"), nb::arg("src_descs"), nb::arg("dst_descs"), nb::arg("remote_name"),
            nb::arg("sync_message") = std::nullopt)
        .def_prop_ro("op", &kvc::TransferRequest::getOp)
        .def_prop_ro("src_descs", &kvc::TransferRequest::getSrcDescs)
        .def_prop_ro("dst_descs", &kvc::TransferRequest::getDstDescs)
        .def_prop_ro("remote_name", &kvc::TransferRequest::getRemoteName)
        .def_prop_ro("sync_message", &kvc::TransferRequest::getSyncMessage);
}

void bindConfig(nb::module_& m)
{
    using Params = std::unordered_map<std::string, std::string>;
    nb::class_<kvc::BaseAgentConfig>(m, "BaseAgentConfig")
        .def(nb::init<>())
        .def(
            "__init__",
            [](kvc::BaseAgentConfig* self, std::string name, bool progress, bool multi, bool listen, bool telemetry,
                Params backendParams
#if HOST_AGE >= AGE_P4
                ,
                std::optional<int> rank, std::optional<int> worldSize, size_t bufferMb, Params bounceParams
#endif
            )
            {
                new (self) kvc::BaseAgentConfig{std::move(name), progress, multi, listen, telemetry,
                    std::move(backendParams)
#if HOST_AGE >= AGE_P4
                        ,
                    rank, worldSize, bufferMb, std::move(bounceParams)
#endif
                };
            },
            nb::arg("name"), nb::arg("use_prog_thread") = true, nb::arg("multi_thread") = false,
            nb::arg("use_listen_thread") = false, nb::arg("enable_telemetry") = false,
            nb::arg("backend_params") = Params{}
#if HOST_AGE >= AGE_P4
            ,
            nb::arg("rank") = std::nullopt, nb::arg("world_size") = std::nullopt, nb::arg("agent_buffer_size_mb") = 0,
            nb::arg("bounce_params") = Params{}
#endif
            )
        .def_rw("name", &kvc::BaseAgentConfig::mName)
        .def_rw("backend_params", &kvc::BaseAgentConfig::backendParams);
}

void bindStatus(nb::module_& m)
{
    nb::class_<kvc::TransferStatus>(m, "TransferStatus")
        .def("is_completed", &kvc::TransferStatus::isCompleted, ReleaseGil())
        .def("wait", &kvc::TransferStatus::wait, nb::arg("timeout_ms") = -1, ReleaseGil());
    nb::class_<kvc::NixlTransferStatus, kvc::TransferStatus>(m, "NixlTransferStatus")
        .def("is_completed", &kvc::NixlTransferStatus::isCompleted, ReleaseGil())
        .def("wait", &kvc::NixlTransferStatus::wait, nb::arg("timeout_ms") = -1, ReleaseGil())
#if HOST_AGE >= AGE_P3
        .def("release", &kvc::NixlTransferStatus::release, ReleaseGil())
        .def("get_last_status", &kvc::NixlTransferStatus::getLastStatus)
        .def("get_last_status_str", &kvc::NixlTransferStatus::getLastStatusStr)
#endif
        ;
}

// The functions of an agent, called through the class that Python has: by name where that is final.
template <typename Agent, typename Class>
void bindAgentFunctions(Class& agent)
{
    using Name = std::string const&;
    agent.def("register_memory", &Agent::registerMemory, nb::arg("descs"))
        .def("deregister_memory", &Agent::deregisterMemory, nb::arg("descs"))
        .def("load_remote_agent", nb::overload_cast<Name, kvc::AgentDesc const&>(&Agent::loadRemoteAgent),
            nb::arg("name"), nb::arg("agent_desc"))
        .def("load_remote_agent_by_connection", nb::overload_cast<Name, Name>(&Agent::loadRemoteAgent),
            nb::arg("name"), nb::arg("connection_info"))
        .def("get_local_agent_desc", &Agent::getLocalAgentDesc)
        .def("get_local_connection_info", &Agent::getLocalConnectionInfo)
        .def("invalidate_remote_agent", &Agent::invalidateRemoteAgent, nb::arg("name"))
        .def(
            "submit_transfer_requests",
            [](Agent& self, kvc::TransferRequest const& request)
            { return self.submitTransferRequests(request).release(); },
            nb::arg("request"), nb::rv_policy::take_ownership, ReleaseGil())
        .def("notify_sync_message", &Agent::notifySyncMessage, nb::arg("name"), nb::arg("sync_message"))
        .def("get_notified_sync_messages", &Agent::getNotifiedSyncMessages)
        .def("check_remote_descs", &Agent::checkRemoteDescs, nb::arg("name"), nb::arg("memory_descs"));
}

void bindAgents(nb::module_& m)
{
    nb::class_<kvc::BaseTransferAgent> base(m, "BaseTransferAgent");
    bindAgentFunctions<kvc::BaseTransferAgent>(base);

    nb::class_<kvc::NixlTransferAgent, kvc::BaseTransferAgent> agent(m, "NixlTransferAgent");
    agent.def(
        "__init__",
        [](kvc::NixlTransferAgent* self, kvc::BaseAgentConfig const& config)
        {
            poison(self, sizeof(*self));
            new (self) kvc::NixlTransferAgent(config);
        },
        nb::arg("config"));
    bindAgentFunctions<kvc::NixlTransferAgent>(agent);
#if HOST_AGE >= AGE_P3
    agent.def("shutdown", &kvc::NixlTransferAgent::shutdown, ReleaseGil());
#endif
#if HOST_AGE >= AGE_P4
    agent.def_prop_ro("bounce_enabled", &kvc::NixlTransferAgent::isBounceEnabled)
        .def_prop_ro("bounce_submit_count", &kvc::NixlTransferAgent::getBounceSubmitCount);
#endif
}

// The other way to an agent, as the host's C++ code takes it: the factory of a wrapper library.
kvc::BaseTransferAgent* makeTransferAgent(std::string const& backend, kvc::BaseAgentConfig const& config)
{
    auto const library = "libtensorrt_llm_" + backend + "_wrapper.so";
    auto const factory = backend == "nixl" ? "createNixlTransferAgent" : "createMooncakeTransferAgent";
    using Create = std::unique_ptr<kvc::BaseTransferAgent> (*)(kvc::BaseAgentConfig const*);
    void* const handle = ::dlopen(library.c_str(), RTLD_LAZY);
    auto const create = handle == nullptr ? nullptr : reinterpret_cast<Create>(::dlsym(handle, factory));
    if (create == nullptr)
    {
        throw std::runtime_error(library + " can not be loaded correctly: " + ::dlerror());
    }
    return create(&config).release();
}

} // namespace

NB_MODULE(tensorrt_llm_transfer_agent_binding, m)
{
    m.doc() = "Baton's stand-in for TensorRT-LLM's transfer agent binding";
    bindEnums(m);
    bindDescs(m);
    bindAgentDesc(m);
    bindRequest(m);
    bindConfig(m);
    bindStatus(m);
    bindAgents(m);
    m.def("make_transfer_agent", &makeTransferAgent, nb::arg("backend"), nb::arg("config"),
        nb::rv_policy::take_ownership);
    m.attr("NIXL_ENABLED") = true;
    m.attr("MOONCAKE_ENABLED") = false;
    auto storage = m.def_submodule("storage", "What a constructor writes into the host's memory");
    bindStorage(storage);
}
