# baton_wrapper: the one library, under the names that hosts dlopen.
#
# cmake/exports.txt is the only list of what it exports: the version script is made from it, and the test of the
# symbol table reads it.
set(BATON_EXPORTS ${CMAKE_CURRENT_SOURCE_DIR}/cmake/exports.txt)
set(BATON_VERSION_SCRIPT ${CMAKE_CURRENT_BINARY_DIR}/exports.map)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${BATON_EXPORTS})
file(STRINGS ${BATON_EXPORTS} exported)
list(JOIN exported "; " exported)
file(CONFIGURE OUTPUT ${BATON_VERSION_SCRIPT} CONTENT "{ global: @exported@; local: *; };\n" @ONLY)

# S2's classes, once for each spelling of the host's namespace. They name nothing of the bridge's.
function(add_nixl_classes spelling host_namespace our_namespace)
  add_library(baton_nixl_classes_${spelling} OBJECT cpp/nixl_classes.cc)
  target_include_directories(baton_nixl_classes_${spelling} PRIVATE cpp)
  target_compile_definitions(baton_nixl_classes_${spelling} PRIVATE
    BATON_HOST_KV_CACHE=${host_namespace} BATON_ABI=${our_namespace})
  set_target_properties(baton_nixl_classes_${spelling} PROPERTIES
    POSITION_INDEPENDENT_CODE ON
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
endfunction()
add_nixl_classes(plain tensorrt_llm::executor::kv_cache baton::abi)
add_nixl_classes(v1 tensorrt_llm::_v1::executor::kv_cache baton::abi_v1)

add_library(baton_wrapper SHARED
  $<TARGET_OBJECTS:baton_nixl_classes_plain>
  $<TARGET_OBJECTS:baton_nixl_classes_v1>
  cpp/agent_factory.cc
  cpp/connection_manager.cc
  cpp/factories.cc
  cpp/loopback_agent.cc
  cpp/transfer_agent.cc
  cpp/transfer_status.cc)
include(${CMAKE_CURRENT_SOURCE_DIR}/cmake/note.cmake)
add_dependencies(baton_wrapper baton_cargo)
target_include_directories(baton_wrapper PRIVATE cpp ${BATON_BRIDGE_INCLUDE})
target_link_libraries(baton_wrapper PRIVATE baton_engine)
target_link_options(baton_wrapper PRIVATE
  -Wl,--version-script=${BATON_VERSION_SCRIPT} # the seams' symbols alone
  -Wl,--exclude-libs,ALL                       # nothing of the engine's or of its libraries
  $<$<NOT:$<BOOL:${BATON_SANITIZE}>>:-Wl,-z,defs> # a missing symbol is our error, at link time
  -Wl,-z,nodelete                              # hosts dlclose while our objects and threads live
  -Wl,--gc-sections)
set_target_properties(baton_wrapper PROPERTIES
  OUTPUT_NAME tensorrt_llm_nixl_wrapper
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/lib
  CXX_VISIBILITY_PRESET hidden
  VISIBILITY_INLINES_HIDDEN ON
  LINK_DEPENDS "${BATON_VERSION_SCRIPT};${BATON_ENGINE_LIBRARY}")

# The other names, as links: whichever a host opens, the loader gives it the one engine.
set(BATON_OTHER_NAMES libtensorrt_llm_mooncake_wrapper.so libtensorrt_llm_ucx_wrapper.so)
foreach(name IN LISTS BATON_OTHER_NAMES)
  add_custom_command(TARGET baton_wrapper POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E create_symlink $<TARGET_FILE_NAME:baton_wrapper> ${name}
    WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/lib
    VERBATIM)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/lib/${name} DESTINATION ${CMAKE_INSTALL_LIBDIR})
endforeach()
install(TARGETS baton_wrapper LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
