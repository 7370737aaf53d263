# The Python side of seam S2: hosts and tests in tests/python, and the engine host with its tests, where there is an
# interpreter that can build them.
#
# BATON_PYTHON names one; else it is the one that scripts/install-python.sh has made. Without either there is
# nothing of it in the build, and one test that says so.
set(BATON_PYTHON "" CACHE FILEPATH "Python with the packages of tests/python/requirements.txt")
set(installed_python ${PROJECT_SOURCE_DIR}/target/python/bin/python)
set(Python_EXECUTABLE "${BATON_PYTHON}")
if(NOT Python_EXECUTABLE AND EXISTS ${PROJECT_SOURCE_DIR}/target/python/installed.txt)
  set(Python_EXECUTABLE ${installed_python})
endif()

# No Python brings a sanitizer's run-time library, which the library needs then.
if(BATON_SANITIZE)
  set(Python_EXECUTABLE "")
endif()

if(Python_EXECUTABLE)
  add_subdirectory(tests/python)
  add_subdirectory(examples/python_engine_host)
  if(BATON_TESTS)
    add_subdirectory(tests/python_engine_host)
  endif()
elseif(BATON_TESTS)
  message(STATUS "Python: none; scripts/install-python.sh makes one. Seam S2 is not tested")
  add_test(NAME python.skipped COMMAND ${CMAKE_COMMAND} -E echo
    "SKIPPED: no Python for seam S2; scripts/install-python.sh says why")
  set_tests_properties(python.skipped PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED: no Python")
endif()
