# With -DTRTLLM_INCLUDE_DIR=<checkout>/cpp/include: compiles cpp/abi/check_host.cc against that TensorRT-LLM's own
# headers. It fails to compile where their layouts are not those of an age Baton serves.
if(TRTLLM_INCLUDE_DIR)
  if(NOT EXISTS ${TRTLLM_INCLUDE_DIR}/tensorrt_llm/executor/transferAgent.h)
    message(FATAL_ERROR "TRTLLM_INCLUDE_DIR=${TRTLLM_INCLUDE_DIR} has no tensorrt_llm/executor/transferAgent.h: "
      "give the cpp/include folder of a TensorRT-LLM checkout, or tensorrt_llm/include of an installed wheel")
  endif()
  add_library(baton_host_headers OBJECT cpp/abi/check_host.cc)
  target_include_directories(baton_host_headers PRIVATE ${TRTLLM_INCLUDE_DIR})
endif()
