# BATON_SANITIZE=address or thread: the engine, the shim and the test hosts with that sanitizer in them, for
# scripts/sanitize.sh. Needs a nightly Rust with rust-src, so that the standard library has it too.
#
# One run-time library serves both languages: Rust's, which is linked whole into every program; the shared library
# finds it there. What the C++ compiler brings of its own is not used, so any of g++ and clang++ will do.
set(BATON_SANITIZE "" CACHE STRING "address or thread: build everything with that sanitizer")
if(NOT BATON_SANITIZE)
  return()
endif()
if(NOT BATON_SANITIZE MATCHES "^(address|thread)$")
  message(FATAL_ERROR "BATON_SANITIZE is \"${BATON_SANITIZE}\"; it has to be address or thread")
endif()

string(SUBSTRING ${BATON_SANITIZE} 0 1 initial)
execute_process(COMMAND rustc +nightly --print sysroot
  OUTPUT_VARIABLE sysroot OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND rustc +nightly --print host-tuple
  OUTPUT_VARIABLE BATON_CARGO_TARGET OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
set(BATON_SANITIZER_RUNTIME
  ${sysroot}/lib/rustlib/${BATON_CARGO_TARGET}/lib/librustc-nightly_rt.${initial}san.a)
if(NOT EXISTS ${BATON_SANITIZER_RUNTIME})
  message(FATAL_ERROR "there is no ${BATON_SANITIZER_RUNTIME}: this Rust has no ${BATON_SANITIZE} sanitizer")
endif()

set(BATON_SANITIZE_FLAGS -fsanitize=${BATON_SANITIZE} -fno-omit-frame-pointer)
add_compile_options(${BATON_SANITIZE_FLAGS})
set(is_program $<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>)
add_link_options(
  "$<${is_program}:LINKER:--whole-archive,${BATON_SANITIZER_RUNTIME},--no-whole-archive,--export-dynamic>")
link_libraries(Threads::Threads ${CMAKE_DL_LIBS} m rt)
