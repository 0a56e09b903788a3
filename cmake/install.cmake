# cmake --install, and the two Debian packages of `make package`:
#
#   ft         coordinator, worker, ftctl, units; no libtorch
#   ft-train   the rank, and the libraries that it was built with
#
# ft-train finds libtorch in ../lib/ft, wherever the prefix is.
include(GNUInstallDirs)

install(TARGETS ft-coordinator ft-worker ftctl
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ft)
install(FILES LICENSE README.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT ft)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright COMPONENT ft)
install(FILES docs/job.schema.json
        DESTINATION ${CMAKE_INSTALL_DATADIR}/ft COMPONENT ft)
install(DIRECTORY examples/
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples COMPONENT ft)
# Where systemd looks, whatever the architecture's own library folder is.
install(FILES deploy/systemd/ft-coordinator.service deploy/systemd/ft-worker.service
        DESTINATION lib/systemd/system COMPONENT ft)
install(FILES deploy/systemd/ft.sysusers
        DESTINATION lib/sysusers.d RENAME ft.conf COMPONENT ft)

if(FT_TORCH)
  set_target_properties(ft-train PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/ft")
  install(TARGETS ft-train
          RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ft-train)
  file(GLOB ft_torch_files
       "${ft_torch_lib}/libtorch_cpu.so" "${ft_torch_lib}/libc10.so" "${ft_torch_lib}/libgomp*"
       "${FT_TORCH_PREFIX}/nvidia/cu13/lib/libcudart.so.*"
       "${FT_TORCH_PREFIX}/nvidia/cu13/lib/libcupti.so.*")
  install(FILES ${ft_torch_files} DESTINATION lib/ft COMPONENT ft-train)
  install(FILES deploy/debian/ft-train.copyright
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/ft-train RENAME copyright COMPONENT ft-train)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME ft)
set(CPACK_PACKAGE_VENDOR ft)
set(CPACK_PACKAGE_CONTACT "the ft authors <ft@localhost>")
set(CPACK_PACKAGE_DIRECTORY "${CMAKE_BINARY_DIR}/packages")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL ft)
if(FT_TORCH)
  list(APPEND CPACK_COMPONENTS_ALL ft-train)
endif()
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS
    "${ft_torch_lib}" "${FT_TORCH_PREFIX}/nvidia/cu13/lib")
set(CPACK_DEBIAN_FT_PACKAGE_NAME ft)
set(CPACK_COMPONENT_FT_DESCRIPTION
    "Fine-tuning service: coordinator, worker daemon and command line
 Queues fine-tuning jobs, schedules them over workers and keeps their results.
 The worker needs ft-train, which may be on other machines only.")
set(CPACK_DEBIAN_FT_PACKAGE_RECOMMENDS ft-train)
set(CPACK_DEBIAN_FT_PACKAGE_CONTROL_EXTRA
    "${PROJECT_SOURCE_DIR}/deploy/debian/postinst;${PROJECT_SOURCE_DIR}/deploy/debian/prerm")
set(CPACK_DEBIAN_FT-TRAIN_PACKAGE_NAME ft-train)
set(CPACK_COMPONENT_FT-TRAIN_DESCRIPTION
    "Fine-tuning service: the training program and its libtorch
 Run by ft-worker, one process a rank; it also stands alone.")
include(CPack)
