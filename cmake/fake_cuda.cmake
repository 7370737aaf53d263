# The stand-in for libcuda.so.1 (tests/fake_cuda), for tests without a GPU: BATON_FAKE_CUDA_LIBRARY, which cargo makes
# with the target baton_fake_cuda, together with the engine: alone it would be built with other features of its libraries,
# and so once more at every turn. Programs find it through the environment variable BATON_CUDA_LIBRARY.
set(BATON_FAKE_CUDA_LIBRARY ${BATON_TARGET_DIR}/${BATON_CARGO_FOLDER}/libfake_cuda.so)

add_custom_target(baton_fake_cuda ALL
  COMMAND ${CMAKE_COMMAND} -E env --unset=CARGO_TARGET_DIR
          ${BATON_CARGO_BUILD} --lib -p baton -p fake-cuda --locked --profile ${BATON_CARGO_PROFILE} --target-dir ${BATON_TARGET_DIR}
  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
  BYPRODUCTS ${BATON_FAKE_CUDA_LIBRARY}
  COMMENT "cargo build (the stand-in for libcuda)"
  USES_TERMINAL
  VERBATIM)
add_dependencies(baton_fake_cuda baton_cargo) # one cargo at a time

# BATON_TEST_CUDA: the driver that tests with memory of a GPU open.
set(BATON_TEST_CUDA "" CACHE STRING "libcuda.so.1: the machine's own, for such tests; the stand-in where this is empty")
if(NOT BATON_TEST_CUDA)
  set(BATON_TEST_CUDA ${BATON_FAKE_CUDA_LIBRARY})
endif()
