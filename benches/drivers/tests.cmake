# What CI sees of the bench: that every driver moves the right bytes, never how fast.
set(BENCH ${CMAKE_BINARY_DIR}/bin)
set(SHORT_BENCH "${BATON_TARGET_DIR}/${BATON_CARGO_FOLDER}/baton" bench --set short --lib-dir ${CMAKE_BINARY_DIR}/lib
  --driver-dir ${BENCH} --python-drivers ${CMAKE_CURRENT_SOURCE_DIR})
if(Python_EXECUTABLE)
  list(APPEND SHORT_BENCH --python ${Python_EXECUTABLE} --binding-dir ${CMAKE_BINARY_DIR}/python/plain-open)
endif()

# A small cell of each kind over both paths, by everybody who is to be had: `make test` sets NIXL_HOME.
add_test(NAME bench.short COMMAND sh -c
  "exec \"$@\" --out short \${NIXL_HOME:+--nixl \"$NIXL_HOME\"} \${MOONCAKE_HOME:+--mooncake \"$MOONCAKE_HOME\"}" sh ${SHORT_BENCH})
set_tests_properties(bench.short PROPERTIES
  TIMEOUT 300 RUN_SERIAL ON WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}
  ENVIRONMENT_MODIFICATION "BATON_LANES=unset:;BATON_TRTLLM_ABI=unset:")

# That a driver's check can fail: what never came, and what came where nothing should.
function(test_check name fill text)
  add_test(NAME bench.check.${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_can_fail.sh ${fill} ${text} ${ARGN})
  set_tests_properties(bench.check.${name} PROPERTIES TIMEOUT 60)
endfunction()
test_check(missing zero "wrong data at offset 0 " ${BENCH}/baton-bench-limit)
test_check(gap pattern "wrong data at offset 4096 " ${BENCH}/baton-bench-limit)
if(Python_EXECUTABLE)
  set(PYTHON_DRIVER ${Python_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/python/nixl_driver.py)
  test_check(python_missing zero "wrong data at offset 0 " ${PYTHON_DRIVER})
  test_check(python_gap pattern "wrong data at offset 4096 " ${PYTHON_DRIVER})
endif()
