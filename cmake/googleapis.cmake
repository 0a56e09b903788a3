# The error details of google.rpc (ErrorInfo, BadRequest, ...), generated from
# the pinned PyPI package googleapis-common-protos; never copied into the tree.
#
#   ft::googleapis
set(FT_GOOGLEAPIS "${FT_CACHE}/googleapis" CACHE PATH
    "Folder that holds google/rpc/*.proto; tools/bootstrap fills it")
if(NOT EXISTS "${FT_GOOGLEAPIS}/google/rpc/error_details.proto")
  message(FATAL_ERROR "FT_GOOGLEAPIS='${FT_GOOGLEAPIS}' has no "
          "google/rpc/error_details.proto; run tools/bootstrap control")
endif()
set(ft_googleapis_gen "${CMAKE_BINARY_DIR}/googleapis")
file(MAKE_DIRECTORY "${ft_googleapis_gen}")
set(ft_googleapis_sources "")
foreach(name error_details status)
  set(base "${ft_googleapis_gen}/google/rpc/${name}")
  add_custom_command(OUTPUT "${base}.pb.cc" "${base}.pb.h"
    COMMAND protobuf::protoc "--proto_path=${FT_GOOGLEAPIS}"
            "--cpp_out=${ft_googleapis_gen}"
            "${FT_GOOGLEAPIS}/google/rpc/${name}.proto"
    DEPENDS "${FT_GOOGLEAPIS}/google/rpc/${name}.proto" VERBATIM)
  list(APPEND ft_googleapis_sources "${base}.pb.cc")
endforeach()
add_library(ft_googleapis STATIC ${ft_googleapis_sources})
add_library(ft::googleapis ALIAS ft_googleapis)
target_include_directories(ft_googleapis SYSTEM PUBLIC "${ft_googleapis_gen}")
target_link_libraries(ft_googleapis PUBLIC protobuf::libprotobuf)
target_compile_features(ft_googleapis PUBLIC cxx_std_20)
set_target_properties(ft_googleapis PROPERTIES CXX_EXTENSIONS OFF
                                               POSITION_INDEPENDENT_CODE ON)
target_compile_options(ft_googleapis PRIVATE ${ft_sanitize_options})
