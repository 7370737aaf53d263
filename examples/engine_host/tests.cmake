# What `make test` has the demo show, small: each lane, split heads, a flipped byte, a killed peer, refusals.
set(BATON_PROGRAM ${BATON_TARGET_DIR}/${BATON_CARGO_FOLDER}/baton)
add_custom_target(baton_program ALL
  COMMAND ${CMAKE_COMMAND} -E env --unset=CARGO_TARGET_DIR
          ${BATON_CARGO_BUILD} --bin baton --locked --profile ${BATON_CARGO_PROFILE} --target-dir ${BATON_TARGET_DIR}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  USES_TERMINAL
  VERBATIM)
add_dependencies(baton_program baton_cargo) # one cargo at a time

set(DEMO ${BATON_PROGRAM} demo --host $<TARGET_FILE:baton-engine-host> --lib-dir ${CMAKE_BINARY_DIR}/lib)

set(DEMO_LIMIT_S 90)
if(BATON_SANITIZE)
  set(DEMO_LIMIT_S 300)
endif()

# `baton demo` with these arguments must do its work: exit with 0.
function(test_demo name)
  add_test(NAME demo.${name} COMMAND ${DEMO} --requests 1 --out ${CMAKE_CURRENT_BINARY_DIR}/${name}.json ${ARGN})
  set_tests_properties(demo.${name} PROPERTIES TIMEOUT ${DEMO_LIMIT_S})
endfunction()

# A program with these arguments must say this, and fail.
function(test_refusal name text)
  add_test(NAME demo.${name} COMMAND sh -c "! \"$@\" > ${name}.txt 2>&1 && cat ${name}.txt && grep -qF -e '${text}' ${name}.txt"
    sh ${ARGN})
  set_tests_properties(demo.${name} PROPERTIES TIMEOUT ${DEMO_LIMIT_S} WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
endfunction()

# The same over the lane ucx, with the libucp that BATON_UCX_LIBRARY names (`make test` sets it), else the system's.
# Where that is none that Baton takes, the library says so and ctest calls the test skipped. That Baton takes every
# good one is held by the conformance suite, which does not ask the fabric.
function(test_demo_ucx name)
  test_demo(${name} --lane ucx ${ARGN})
  set_tests_properties(demo.${name} PROPERTIES SKIP_REGULAR_EXPRESSION "ucx: not available here")
endfunction()

foreach(lane local stream-unix stream-tcp)
  test_demo(lane.${lane} --lane ${lane})
endforeach()
test_demo_ucx(lane.ucx)
test_demo(heads_split --shape all --tp 2 --gen-tp 4 --dtype bf16 --tokens-per-block 64)
test_demo(heads_joined --shape all --tp 4 --gen-tp 2)
test_demo(heads_replicated --shape all --model qwen3-235b --tp 8 --gen-tp 2)
test_demo(latent --shape all --model deepseek-r1 --tp 1 --gen-tp 2)

file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/mooncake.yaml
  "cache_transceiver_config:\n  backend: MOONCAKE\n  max_tokens_in_buffer: 8192\n")
test_demo(mooncake --shape staged --config ${CMAKE_CURRENT_BINARY_DIR}/mooncake.yaml)

# The connection manager: one rank or two in each phase, slots that no request fits into, peers that share heads.
test_demo(s3.ranks --seam s3)
foreach(lane stream-unix stream-tcp)
  test_demo(s3.lane.${lane} --seam s3 --tp 2 --gen-tp 1 --lane ${lane})
endforeach()
test_demo_ucx(s3.lane.ucx --seam s3 --gen-tp 2)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/ucx.yaml "backend: UCX\nmax_tokens_in_buffer: 1024\n")
test_demo(s3.rounds --config ${CMAKE_CURRENT_BINARY_DIR}/ucx.yaml --tp 2 --gen-tp 4)
test_demo(s3.rounds_latent --config ${CMAKE_CURRENT_BINARY_DIR}/ucx.yaml --model deepseek-r1 --tp 1 --gen-tp 2)

# KV cache on a GPU, in the four combinations with DRAM; made of chunks; with split heads, gathered and scattered there.
function(test_demo_vram name)
  test_demo(${name} ${ARGN})
  set_tests_properties(demo.${name} PROPERTIES LABELS gpu ENVIRONMENT "BATON_CUDA_LIBRARY=${BATON_TEST_CUDA}")
endfunction()

test_demo_vram(vram --shape all --memory vram)
test_demo_vram(vram.stream-tcp --shape all --memory vram --lane stream-tcp)
test_demo_vram(vram.to_dram --shape all --memory vram --gen-memory dram)
test_demo_vram(vram.from_dram --shape all --memory dram --gen-memory vram)
test_demo_vram(vram.vmm --shape all --memory vmm)
test_demo_vram(vram.vmm_private --shape paged --memory vmm-private)
test_demo_vram(vram.heads_split --shape all --tp 2 --gen-tp 4 --dtype bf16 --tokens-per-block 64 --memory vram)
test_demo_vram(vram.latent --shape all --model deepseek-r1 --tp 1 --gen-tp 2 --memory vram)
test_demo_vram(s3.vram --seam s3 --memory vram)
test_demo_vram(s3.vram.rounds --config ${CMAKE_CURRENT_BINARY_DIR}/ucx.yaml --tp 2 --gen-tp 4 --memory vram)
foreach(phase context generation)
  test_demo_vram(vram.killed_${phase} --kill ${phase} --memory vram)
endforeach()
# A driver that cannot be had is said by whoever needs it.
test_refusal(no_driver "GPU memory needs the NVIDIA driver: /nowhere/libcuda.so.1" ${DEMO} --requests 1 --memory vram
  --out ${CMAKE_CURRENT_BINARY_DIR}/no_driver.json)
set_tests_properties(demo.no_driver PROPERTIES ENVIRONMENT BATON_CUDA_LIBRARY=/nowhere/libcuda.so.1)

# The Python agent, where there is a Python that has what its engine host needs; python.skipped says so where not.
if(Python_EXECUTABLE)
  set(S2 --seam s2 --python ${Python_EXECUTABLE} --python-host ${PROJECT_SOURCE_DIR}/examples/python_engine_host
    --binding-dir ${CMAKE_BINARY_DIR}/python/plain-open)
  test_demo(s2.ranks ${S2})
  test_demo(s2.lane.stream-tcp ${S2} --tp 2 --gen-tp 1 --lane stream-tcp)
  test_demo(s2.own_age ${S2} --gen-tp 1)
  set_tests_properties(demo.s2.own_age PROPERTIES ENVIRONMENT "BATON_TRTLLM_ABI=p0")
  test_demo_vram(s2.vram ${S2} --memory vram)
  test_demo_vram(s2.vram.from_dram ${S2} --gen-memory vram)
  test_refusal(s2.corrupt_byte_is_found ", 1 corrupt" ${DEMO} ${S2} --requests 1 --corrupt 1
    --out ${CMAKE_CURRENT_BINARY_DIR}/s2.corrupt.json)
  foreach(phase context generation)
    test_demo(s2.killed_${phase} ${S2} --kill ${phase})
  endforeach()
endif()

# The engine host is of age P4 also where the environment names another, for TensorRT-LLM.
test_demo(own_age --shape staged --lane stream-unix)
set_tests_properties(demo.own_age PROPERTIES ENVIRONMENT "BATON_TRTLLM_ABI=p0")

# A worker's variables: its port is for one process, its log filter must not hide which lane was taken.
test_demo(workers_environment --shape paged --lane stream-tcp)
set_tests_properties(demo.workers_environment PROPERTIES ENVIRONMENT "TRTLLM_NIXL_PORT=1;BATON_LOG=error")
# Nobody reads the table: the exit status still says how it went.
add_test(NAME demo.reader_gone COMMAND bash -c "set -o pipefail; \"$@\" | true" bash
  ${DEMO} --requests 1 --shape paged --out ${CMAKE_CURRENT_BINARY_DIR}/reader_gone.json)
set_tests_properties(demo.reader_gone PROPERTIES TIMEOUT ${DEMO_LIMIT_S})
test_refusal(output_full "standard output: No space left" sh -c "\"$@\" > /dev/full" sh
  ${DEMO} --requests 1 --shape paged --out ${CMAKE_CURRENT_BINARY_DIR}/output_full.json)

test_refusal(report_unwritable "the report cannot be written to ${CMAKE_CURRENT_BINARY_DIR}: Is a directory" ${DEMO}
  --out ${CMAKE_CURRENT_BINARY_DIR})
test_refusal(corrupt_byte_is_found ", 1 corrupt" ${DEMO} --requests 1 --corrupt 1
  --out ${CMAKE_CURRENT_BINARY_DIR}/corrupt.json)
test_refusal(s3.corrupt_byte_is_found ", 1 corrupt" ${DEMO} --seam s3 --requests 1 --corrupt 1
  --out ${CMAKE_CURRENT_BINARY_DIR}/s3.corrupt.json)
foreach(phase context generation)
  test_demo(killed_${phase} --kill ${phase})
  test_demo(s3.killed_${phase} --seam s3 --kill ${phase})
  test_demo(s3.killed_${phase}.stream --seam s3 --kill ${phase} --lane stream-tcp)
  test_demo(killed_${phase}.stream --kill ${phase} --lane stream-tcp)
  test_demo_ucx(killed_${phase}.ucx --kill ${phase})
endforeach()

# The line that operators look for stands also before a backend that cannot be created.
test_refusal(libfabric_is_named "NixlTransferAgent::NixlTransferAgent using NIXL backend: LIBFABRIC" ${DEMO} --requests 1
  --out ${CMAKE_CURRENT_BINARY_DIR}/libfabric.json)
test_refusal(libfabric_is_refused "Failed to create NIXL backend: LIBFABRIC" ${DEMO} --requests 1
  --out ${CMAKE_CURRENT_BINARY_DIR}/libfabric.json)
set_tests_properties(demo.libfabric_is_named demo.libfabric_is_refused PROPERTIES
  ENVIRONMENT TRTLLM_NIXL_KVCACHE_BACKEND=LIBFABRIC)

set(HOST $<TARGET_FILE:baton-engine-host> --layers 2 --kv-heads 2 --head-dim 64 --pool-blocks 4)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/mpi.yaml "backend: MPI\n")
test_refusal(host.backend_mpi "backend MPI opens no library" ${HOST} --config ${CMAKE_CURRENT_BINARY_DIR}/mpi.yaml)
test_refusal(backend_mpi "backend MPI opens no library" ${DEMO} --config ${CMAKE_CURRENT_BINARY_DIR}/mpi.yaml)
test_refusal(host.other_seam "backend UCX does not go through seam s1" ${HOST} --seam s1
  --config ${CMAKE_CURRENT_BINARY_DIR}/ucx.yaml)
test_refusal(other_seam "--seam s1: backend UCX of the configuration does not go through it, but NIXL does" ${DEMO}
  --seam s1 --config ${CMAKE_CURRENT_BINARY_DIR}/ucx.yaml)
test_refusal(host.paged_at_s3 "--shape paged does not exist at seam s3" ${HOST} --seam s3 --shape paged)
test_refusal(paged_at_s3 "--shape paged does not exist at seam s3" ${DEMO} --seam s3 --shape paged)
test_refusal(staged_at_s2 "--shape staged does not exist at seam s2" ${DEMO} --seam s2 --shape staged)
test_refusal(python_host_is_missing "name its place with --python-host" ${DEMO} --seam s2 --python-host /nowhere)
# A rank that is told of no other does not serve half an instance.
# Its stdin has to stay open: a rank whose driver is gone leaves without a word.
test_refusal(host.lone_rank "getCommState lists 1 ranks and calls this one 0; it is rank 0 of 2" sh -c
  "sleep 2 | LD_LIBRARY_PATH='${CMAKE_BINARY_DIR}/lib' TRTLLM_UCX_INTERFACE=lo \"$0\" \"$@\""
  ${HOST} --seam s3 --tp 2)
file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/field.yaml "backend: NIXL\nmax_tokens_in_bufer: 64\n")
test_refusal(host.unknown_field "field.yaml:2: unknown field" ${HOST}
  --config ${CMAKE_CURRENT_BINARY_DIR}/field.yaml)
test_refusal(host.device_of_dram "--device, --vmm and --vmm-private are about --memory vram" ${HOST} --device 1)
test_refusal(host.private_without_chunks "--vmm-private is about the chunks of --vmm" ${HOST} --memory vram
  --vmm-private 1)
test_refusal(host.uneven_slot "max_tokens_in_buffer 33 is not a multiple of tokens_per_block 32" ${HOST}
  --max-tokens-in-buffer 33)
