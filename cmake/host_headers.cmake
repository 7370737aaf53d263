# With -DTRTLLM_INCLUDE_DIR=<checkout>/cpp/include: compiles cpp/abi/check_host.cc against that TensorRT-LLM's own
# headers, and runs it. It fails to compile where their layouts are not those of an age Baton serves; the order of
# the virtual functions is known only to the finished program, so it fails to run where that is another.
if(TRTLLM_INCLUDE_DIR)
  if(NOT EXISTS ${TRTLLM_INCLUDE_DIR}/tensorrt_llm/executor/transferAgent.h)
    message(FATAL_ERROR "TRTLLM_INCLUDE_DIR=${TRTLLM_INCLUDE_DIR} has no tensorrt_llm/executor/transferAgent.h: "
      "give the cpp/include folder of a TensorRT-LLM checkout, or tensorrt_llm/include of an installed wheel")
  endif()
  add_executable(baton_check_host cpp/abi/check_host.cc cpp/abi/check_host_main.cc)
  target_include_directories(baton_check_host PRIVATE ${TRTLLM_INCLUDE_DIR})
  add_custom_target(baton_host_headers ALL COMMAND baton_check_host VERBATIM)
endif()
