# ft_library, ft_program, ft_test: every target of the project is made by one of
# these, so that warnings, standards and sanitizers are the same everywhere.

find_package(Threads REQUIRED)
# Debian's abseil is found in CONFIG mode.
find_package(absl CONFIG REQUIRED)

# Where downloads live: outside the tree, shared by clones.
if(DEFINED ENV{FT_CACHE})
  set(ft_cache_default "$ENV{FT_CACHE}")
elseif(DEFINED ENV{XDG_CACHE_HOME})
  set(ft_cache_default "$ENV{XDG_CACHE_HOME}/ft")
else()
  set(ft_cache_default "$ENV{HOME}/.cache/ft")
endif()
set(FT_CACHE "${ft_cache_default}" CACHE PATH "Downloads made by tools/bootstrap")

find_program(FT_MOLD mold)
set(ft_link_options "")
if(FT_MOLD)
  list(APPEND ft_link_options "-fuse-ld=mold")
endif()
set(ft_sanitize_options "")
if(FT_SANITIZE)
  set(ft_sanitize_options -fsanitize=${FT_SANITIZE} -fno-omit-frame-pointer
                          -fno-sanitize-recover=all)
endif()

function(ft_target_options name)
  target_compile_features(${name} PUBLIC cxx_std_20)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF
                                           POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wno-missing-field-initializers
      -Werror=unused-result -Werror=return-type -ffp-contract=off>
    $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wthread-safety -Werror=thread-safety>
    ${ft_sanitize_options})
  target_link_options(${name} PRIVATE ${ft_sanitize_options} ${ft_link_options})
endfunction()

# ft_library(<name> [SRCS ...] [HDRS ...] [DEPS ...]) makes ft::<name>. Every
# header must compile by itself: `all_verify_interface_header_sets` checks it.
function(ft_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;HDRS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(ft_${name} STATIC ${ARG_SRCS})
    target_link_libraries(ft_${name} PUBLIC ${ARG_DEPS})
    ft_target_options(ft_${name})
    set(scope PUBLIC)
  else()
    add_library(ft_${name} INTERFACE)
    target_link_libraries(ft_${name} INTERFACE ${ARG_DEPS})
    target_compile_features(ft_${name} INTERFACE cxx_std_20)
    set(scope INTERFACE)
  endif()
  add_library(ft::${name} ALIAS ft_${name})
  target_sources(ft_${name} ${scope} FILE_SET HEADERS
                 BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${ARG_HDRS})
  set_target_properties(ft_${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
endfunction()

# ft_program(<name> [SRCS ...] [DEPS ...]) makes an executable that lands in
# ${CMAKE_BINARY_DIR}/bin, where the programs find each other.
function(ft_program name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS})
  ft_target_options(${name})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                           ${CMAKE_BINARY_DIR}/bin)
endfunction()

# ft_test(<name> SRCS ... DEPS ... [LABELS unit|integration|slow|gpu ...]
#         [TIMEOUT seconds] [ARGS ...] [SERIAL])
# A GoogleTest program, one ctest entry per TEST. FT_TEST_SOURCE_DIR is the
# repository root (goldens lie in tests/golden). Default label: unit. SERIAL:
# beside no other test, for it takes times.
function(ft_test name)
  cmake_parse_arguments(ARG "SERIAL" "TIMEOUT" "SRCS;DEPS;LABELS;ENV" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  ft_target_options(${name})
  # What is tested is optimised; the test itself compiles faster without.
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  target_compile_definitions(${name} PRIVATE
    FT_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
    FT_TEST_BINARY_DIR="${CMAKE_BINARY_DIR}")
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                           ${CMAKE_BINARY_DIR}/tests)
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  if(ARG_SERIAL)
    list(APPEND properties RUN_SERIAL ON)
  endif()
  list(APPEND ARG_ENV "OMP_WAIT_POLICY=passive" "GOMP_SPINCOUNT=0")
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
               ENVIRONMENT "${ARG_ENV}" ${properties})
endfunction()
if(FT_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()
