# Imported targets for the libtorch inside the PyPI wheel. Never
# find_package(Torch): it drags in CUDA, and its headers bring a google/ and a
# fmt/ of their own.
#
#   ft::torch_cpu   libtorch_cpu and libc10
#   ft_torch_target(<target>)  -g1 and the one precompiled header
set(FT_TORCH_PREFIX "${FT_CACHE}/cpu" CACHE PATH
    "Folder that holds torch/ and nvidia/ as unpacked from the wheels")
set(ft_torch_version "2.11.0")

if(NOT EXISTS "${FT_TORCH_PREFIX}/torch/lib/libtorch_cpu.so")
  message(FATAL_ERROR "FT_TORCH_PREFIX='${FT_TORCH_PREFIX}' has no "
          "torch/lib/libtorch_cpu.so; run tools/bootstrap cpu first")
endif()
file(STRINGS "${FT_TORCH_PREFIX}/torch/version.py" ft_torch_found REGEX "^__version__")
if(NOT ft_torch_found MATCHES "'${ft_torch_version}[+']")
  message(FATAL_ERROR "torch in FT_TORCH_PREFIX is ${ft_torch_found}; "
          "wanted ${ft_torch_version}; run tools/bootstrap cpu")
endif()

# A farm of symbolic links: google/, fmt/, pybind11/ and dnnl*.h of the wheel
# stay invisible, so that torch and Debian's protobuf share a file.
set(ft_torch_include "${CMAKE_BINARY_DIR}/torch_include")
file(MAKE_DIRECTORY "${ft_torch_include}")
foreach(folder ATen c10 caffe2 torch)
  if(NOT EXISTS "${ft_torch_include}/${folder}")
    file(CREATE_LINK "${FT_TORCH_PREFIX}/torch/include/${folder}"
         "${ft_torch_include}/${folder}" SYMBOLIC)
  endif()
endforeach()

set(ft_torch_lib "${FT_TORCH_PREFIX}/torch/lib")
foreach(library c10 torch_cpu)
  add_library(ft_lib_${library} SHARED IMPORTED GLOBAL)
  set_target_properties(ft_lib_${library} PROPERTIES
                        IMPORTED_LOCATION "${ft_torch_lib}/lib${library}.so")
endforeach()
add_library(ft_torch_cpu INTERFACE)
add_library(ft::torch_cpu ALIAS ft_torch_cpu)
target_include_directories(ft_torch_cpu SYSTEM INTERFACE "${ft_torch_include}")
target_compile_features(ft_torch_cpu INTERFACE cxx_std_20)
target_compile_definitions(ft_torch_cpu INTERFACE AT_PER_OPERATOR_HEADERS)
target_link_libraries(ft_torch_cpu INTERFACE ft_lib_torch_cpu ft_lib_c10)
target_link_options(ft_torch_cpu INTERFACE
  "LINKER:--allow-shlib-undefined"
  "LINKER:-rpath-link,${FT_TORCH_PREFIX}/nvidia/cu13/lib"
  "LINKER:-rpath-link,${ft_torch_lib}")

# One precompiled header for all of model/, sharding/ and train/: 15-25 s a file
# become 3-7 s. Flags must be the same in every target that reuses it.
add_library(ft_torch_pch OBJECT "${PROJECT_SOURCE_DIR}/cmake/torch_pch.cc")
target_link_libraries(ft_torch_pch PUBLIC ft::torch_cpu)
ft_target_options(ft_torch_pch)
target_compile_options(ft_torch_pch PRIVATE -g1 -fpch-preprocess)
target_precompile_headers(ft_torch_pch PRIVATE "${PROJECT_SOURCE_DIR}/cmake/torch_pch.h")

function(ft_torch_target name)
  target_link_libraries(${name} PUBLIC ft::torch_cpu)
  target_compile_options(${name} PRIVATE -g1 -fpch-preprocess)
  target_precompile_headers(${name} REUSE_FROM ft_torch_pch)
endfunction()

# ft_torch_test: ft_test for a file that includes torch.
function(ft_torch_test name)
  ft_test(${name} ${ARGN})
  target_compile_options(${name} PRIVATE -g1)
endfunction()
