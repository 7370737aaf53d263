# BATON_TEST_CUDA: the CUDA driver of tests that have memory of a GPU. By default the stand-in of tests/fake_cuda, whose GPU is
# host memory; libcuda.so.1 for a machine's own.
set(BATON_TEST_CUDA "" CACHE STRING "libcuda for the tests of GPU memory; the stand-in where this is empty")
if(BATON_TEST_CUDA)
  return()
endif()
set(BATON_TEST_CUDA ${BATON_TARGET_DIR}/${BATON_CARGO_FOLDER}/libfake_cuda.so)
add_custom_target(baton_fake_cuda ALL
  COMMAND ${CMAKE_COMMAND} -E env --unset=CARGO_TARGET_DIR
          ${BATON_CARGO_BUILD} -p fake-cuda --locked --profile ${BATON_CARGO_PROFILE} --target-dir ${BATON_TARGET_DIR}
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  BYPRODUCTS ${BATON_TEST_CUDA}
  COMMENT "cargo build of the stand-in for libcuda"
  USES_TERMINAL
  VERBATIM)
add_dependencies(baton_fake_cuda baton_cargo) # one cargo at a time
