# Everything here comes from the distribution's packages; tools/install-dependencies.sh installs them.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache needs this sloppiness to cache anything compiled with a precompiled header. With paths taken relative to the source
  # folder, what one clone has compiled serves the next, the precompiled header included.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${CCACHE_PROGRAM})
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
                      "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>")
endif()

find_package(Torch REQUIRED)
find_package(MPI REQUIRED COMPONENTS CXX)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Boost 1.74 REQUIRED)
# Charts in the report and on the live page; embedded at build (ThalwegEmbed).
find_file(THALWEG_CHART_JS NAMES chart.min.js chart.umd.js PATHS /usr/share/javascript/chart.js /usr/share/nodejs/chart.js/dist
          DOC "Chart.js, UMD build (package libjs-chart.js)" REQUIRED)

# Debian 12's package names its target yaml-cpp, Debian 13's yaml-cpp::yaml-cpp.
if(NOT TARGET yaml-cpp::yaml-cpp)
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()

add_library(thalweg_options INTERFACE)
target_include_directories(thalweg_options INTERFACE ${PROJECT_SOURCE_DIR}/include)
target_compile_options(thalweg_options INTERFACE -Wall -Wextra -Wno-unused-parameter
                       $<$<BOOL:${THALWEG_WARNINGS_AS_ERRORS}>:-Werror>
                       # results must not depend on which multiply-add the compiler contracts
                       -ffp-contract=off
                       $<$<BOOL:${THALWEG_MARCH}>:-march=${THALWEG_MARCH}>)
if(THALWEG_SANITIZE)
  target_compile_options(thalweg_options INTERFACE -fsanitize=address,undefined -fno-omit-frame-pointer
                         -fno-sanitize=vptr)
  target_link_options(thalweg_options INTERFACE -fsanitize=address,undefined)
endif()
if(THALWEG_FUZZ)
  # A finding ends the program; libFuzzer's own counters come with every module, its main() with the targets only.
  target_compile_options(thalweg_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined
                         -fno-sanitize=vptr -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_definitions(thalweg_options INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(thalweg_options INTERFACE -fsanitize=address,undefined)
endif()

# LibTorch's headers are slow (13 s a file): one precompiled torch/types.h, shared by every target that uses it.
add_library(thalweg_torch INTERFACE)
target_include_directories(thalweg_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(thalweg_torch INTERFACE ${TORCH_LIBRARIES})
function(thalweg_precompile target)
  add_library(${target} OBJECT ${PROJECT_SOURCE_DIR}/cmake/pch.cpp)
  target_link_libraries(${target} PRIVATE thalweg_options thalweg_torch)
  target_compile_options(${target} PRIVATE ${ARGN})
  # clang 14 takes the headers in C++20 only with this one first.
  target_precompile_headers(${target} PRIVATE $<$<CXX_COMPILER_ID:Clang>:ATen/core/ivalue.h> <torch/types.h> <functional> <map> <memory> <string> <vector>)
endfunction()
thalweg_precompile(thalweg_pch)
if(THALWEG_FUZZ)
  thalweg_precompile(thalweg_pch_plain -O0)
endif()
