# thalweg_embed(TARGET NAME file... | identifier=file...)
#   Compiles files into TARGET, so that the program needs none of them when it runs. TARGET may then
#   #include "thalweg/embedded/NAME.hpp", which declares one std::string_view in namespace thalweg::embedded::NAME for each
#   file: under the given identifier, or the file's own name with `_` for every character that an identifier may not
#   hold (report.css → report_css). A changed file is compiled again.
set(THALWEG_EMBED_SCRIPT ${CMAKE_CURRENT_LIST_DIR}/embed.cmake)

function(thalweg_embed target name)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/embedded)
  set(header ${folder}/include/thalweg/embedded/${name}.hpp)
  set(declarations "")
  foreach(entry ${ARGN})
    if(entry MATCHES "^([A-Za-z_][A-Za-z0-9_]*)=(.+)$")
      set(identifier ${CMAKE_MATCH_1})
      set(file ${CMAKE_MATCH_2})
    else()
      set(file ${entry})
      get_filename_component(identifier ${file} NAME)
      string(MAKE_C_IDENTIFIER ${identifier} identifier)
    endif()
    get_filename_component(file ${file} ABSOLUTE)
    set(source ${folder}/${name}_${identifier}.cpp)
    add_custom_command(
      OUTPUT ${source}
      COMMAND ${CMAKE_COMMAND} -D INPUT=${file} -D OUTPUT=${source} -D NAME=${name} -D IDENTIFIER=${identifier}
              -P ${THALWEG_EMBED_SCRIPT}
      DEPENDS ${file} ${THALWEG_EMBED_SCRIPT}
      COMMENT "Embedding ${identifier}" VERBATIM)
    target_sources(${target} PRIVATE ${source})
    set_source_files_properties(${source} PROPERTIES SKIP_PRECOMPILE_HEADERS ON SKIP_UNITY_BUILD_INCLUSION ON)
    string(APPEND declarations "extern const std::string_view ${identifier};\n")
  endforeach()
  set(text "#pragma once\n\n#include <string_view>\n\nnamespace thalweg::embedded::${name} {\n${declarations}}\n")
  file(CONFIGURE OUTPUT ${header} CONTENT "${text}" @ONLY)
  target_include_directories(${target} PRIVATE ${folder}/include)
endfunction()
