# Builds the Rust library and copies it out of cargo's folder; text.cmake runs
# this under a lock. Wants FT_CARGO, FT_CRATE, FT_CLONE, FT_TARGET, FT_ARCHIVE.
execute_process(
  COMMAND "${FT_CARGO}" rustc --release --offline --locked --lib
          --manifest-path "${FT_CRATE}/Cargo.toml" --target-dir "${FT_TARGET}"
          -- -C "metadata=${FT_CLONE}"
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "cargo failed: ${result}")
endif()
execute_process(
  COMMAND "${CMAKE_COMMAND}" -E copy "${FT_TARGET}/release/libft_text.a"
          "${FT_ARCHIVE}"
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "copying the library failed")
endif()
