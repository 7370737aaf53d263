# The ELF note in the library that says which Baton it is; the version is the one of Cargo.toml.
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml)
file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/Cargo.toml version REGEX "^version = " LIMIT_COUNT 1)
if(NOT version MATCHES "\"(.+)\"")
  message(FATAL_ERROR "Cargo.toml has no line that starts with: version = \"...\"")
endif()
target_sources(baton_wrapper PRIVATE cpp/note.cc)
set_source_files_properties(cpp/note.cc PROPERTIES COMPILE_DEFINITIONS "BATON_VERSION=\"${CMAKE_MATCH_1}\"")
