# The Rust static library behind text/ft_text.h: Hugging Face tokenizers and
# chat templates. One per binary (Rust's runtime is inside).
#
#   ft::text_rust   the archive; text/ wraps it as ft::text
find_program(FT_CARGO cargo REQUIRED HINTS "$ENV{HOME}/.cargo/bin")
set(ft_text_crate "${PROJECT_SOURCE_DIR}/text/ft_text")
set(ft_text_archive "${CMAKE_BINARY_DIR}/libft_text_rust.a")
set(ft_cargo_target "${FT_CACHE}/cargo-target")
# Cargo tells a crate by its place in its workspace and by the times of its
# files, so it takes what another clone built for ours if that is newer. An
# argument that differs makes it build again; the crates below stay shared. The
# lock keeps another clone from building between our build and our copy.
string(MD5 ft_text_clone "${ft_text_crate}")
file(GLOB_RECURSE ft_text_sources CONFIGURE_DEPENDS "${ft_text_crate}/src/*.rs")
add_custom_command(
  OUTPUT "${ft_text_archive}"
  COMMAND "${CMAKE_COMMAND}" -E make_directory "${ft_cargo_target}"
  COMMAND "${CMAKE_COMMAND}" -E env "CARGO_TERM_PROGRESS_WHEN=never"
          flock "${ft_cargo_target}/ft_text.lock"
          "${CMAKE_COMMAND}" "-DFT_CARGO=${FT_CARGO}"
          "-DFT_CRATE=${ft_text_crate}" "-DFT_CLONE=${ft_text_clone}"
          "-DFT_TARGET=${ft_cargo_target}" "-DFT_ARCHIVE=${ft_text_archive}"
          -P "${PROJECT_SOURCE_DIR}/cmake/build_text.cmake"
  DEPENDS "${PROJECT_SOURCE_DIR}/cmake/build_text.cmake"
          "${ft_text_crate}/Cargo.toml" "${ft_text_crate}/Cargo.lock" ${ft_text_sources}
  USES_TERMINAL VERBATIM)
add_custom_target(ft_text_rust_build DEPENDS "${ft_text_archive}")
add_library(ft_text_rust STATIC IMPORTED GLOBAL)
add_library(ft::text_rust ALIAS ft_text_rust)
set_target_properties(ft_text_rust PROPERTIES IMPORTED_LOCATION "${ft_text_archive}")
target_link_libraries(ft_text_rust INTERFACE gcc_s pthread dl m)
add_dependencies(ft_text_rust ft_text_rust_build)
