# baton_engine: the Rust engine with the bridge's C++ half in it, as cargo builds it.
#
# cargo decides what is stale, so it runs at every build; it leaves an unchanged library untouched, and then
# nothing is linked again.
find_program(CARGO cargo REQUIRED HINTS $ENV{HOME}/.cargo/bin)

if(BATON_CARGO_PROFILE STREQUAL dev)
  set(BATON_CARGO_FOLDER debug)
else()
  set(BATON_CARGO_FOLDER ${BATON_CARGO_PROFILE})
endif()
set(BATON_TARGET_DIR ${CMAKE_CURRENT_SOURCE_DIR}/target)
set(BATON_CARGO_BUILD ${CARGO} build)
set(BATON_BRIDGE_INCLUDE ${BATON_TARGET_DIR}/cxxbridge)
if(BATON_SANITIZE)
  set(BATON_TARGET_DIR ${BATON_TARGET_DIR}/sanitize-${BATON_SANITIZE})
  set(BATON_CARGO_FOLDER ${BATON_CARGO_TARGET}/${BATON_CARGO_FOLDER})
  set(BATON_BRIDGE_INCLUDE ${BATON_TARGET_DIR}/${BATON_CARGO_TARGET}/cxxbridge)
  list(JOIN BATON_SANITIZE_FLAGS " " cxx_flags)
  set(BATON_CARGO_BUILD RUSTFLAGS=-Zsanitizer=${BATON_SANITIZE} CXXFLAGS=${cxx_flags}
    cargo +nightly build -Zbuild-std --target ${BATON_CARGO_TARGET})
endif()
set(BATON_ENGINE_LIBRARY ${BATON_TARGET_DIR}/${BATON_CARGO_FOLDER}/libbaton.a)

# The bridge's header is no byproduct: `make clean` would delete it, and cargo, which has made it once, would not
# make it again.
add_custom_target(baton_cargo
  COMMAND ${CMAKE_COMMAND} -E env --unset=CARGO_TARGET_DIR
          ${BATON_CARGO_BUILD} --lib --locked --profile ${BATON_CARGO_PROFILE} --target-dir ${BATON_TARGET_DIR}
  WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
  BYPRODUCTS ${BATON_ENGINE_LIBRARY}
  COMMENT "cargo build (${BATON_CARGO_PROFILE})"
  USES_TERMINAL
  VERBATIM)

add_library(baton_engine STATIC IMPORTED GLOBAL)
add_dependencies(baton_engine baton_cargo)
set_target_properties(baton_engine PROPERTIES IMPORTED_LOCATION ${BATON_ENGINE_LIBRARY})
target_link_libraries(baton_engine INTERFACE Threads::Threads ${CMAKE_DL_LIBS} m)
