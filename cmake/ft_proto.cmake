# ft_proto_library(<name> PROTOS ... [GRPC ...]) makes ft::<name> with the
# messages (all programs link it) and ft::<name>_grpc with the stubs of the
# files under GRPC (never linked by ft-train).
#
# Debian has no protobuf CONFIG package: module mode, and before gRPC.
find_package(Protobuf 3.21 REQUIRED)
find_package(gRPC CONFIG REQUIRED)

function(ft_proto_library name)
  cmake_parse_arguments(ARG "" "" "PROTOS;GRPC" ${ARGN})
  set(root "${CMAKE_CURRENT_SOURCE_DIR}")
  set(gen "${CMAKE_CURRENT_BINARY_DIR}/gen")
  file(MAKE_DIRECTORY "${gen}")
  set(messages "")
  set(stubs "")
  foreach(proto IN LISTS ARG_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" base "${proto}")
    set(outs "${gen}/${base}.pb.cc" "${gen}/${base}.pb.h")
    set(command protobuf::protoc "--proto_path=${root}" "--cpp_out=${gen}")
    list(APPEND messages "${gen}/${base}.pb.cc")
    if(proto IN_LIST ARG_GRPC)
      list(APPEND outs "${gen}/${base}.grpc.pb.cc" "${gen}/${base}.grpc.pb.h")
      list(APPEND stubs "${gen}/${base}.grpc.pb.cc")
      list(APPEND command "--grpc_out=${gen}"
           "--plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>")
    endif()
    add_custom_command(OUTPUT ${outs} COMMAND ${command} "${root}/${proto}"
                       DEPENDS "${root}/${proto}" VERBATIM)
  endforeach()

  add_library(ft_${name} STATIC ${messages})
  add_library(ft::${name} ALIAS ft_${name})
  target_include_directories(ft_${name} SYSTEM PUBLIC "${gen}")
  target_link_libraries(ft_${name} PUBLIC protobuf::libprotobuf)
  target_compile_features(ft_${name} PUBLIC cxx_std_20)

  add_library(ft_${name}_grpc STATIC ${stubs})
  add_library(ft::${name}_grpc ALIAS ft_${name}_grpc)
  target_link_libraries(ft_${name}_grpc PUBLIC ft_${name} gRPC::grpc++)
  foreach(target ft_${name} ft_${name}_grpc)
    set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF
                                               POSITION_INDEPENDENT_CODE ON)
    target_compile_options(${target} PRIVATE ${ft_sanitize_options})
  endforeach()
endfunction()
