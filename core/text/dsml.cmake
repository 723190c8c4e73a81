# Tool-call parser and constrained decoding: core/text/{dsml,grammar,schema,constraint}_*.
find_package(Threads REQUIRED)
add_library(dsv4_grammar STATIC
  ${CMAKE_CURRENT_LIST_DIR}/dsml_json.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_strict.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_tag.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_stream.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_emit.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_counted.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_dfa.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_regex.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_folded.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_leaf.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_number.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_slices.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_sweep.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_vocabulary.cpp
  ${CMAKE_CURRENT_LIST_DIR}/grammar_rules.cpp
  ${CMAKE_CURRENT_LIST_DIR}/schema_compile.cpp
  ${CMAKE_CURRENT_LIST_DIR}/schema_json.cpp
  ${CMAKE_CURRENT_LIST_DIR}/schema_resolve.cpp
  ${CMAKE_CURRENT_LIST_DIR}/schema_strings.cpp
  ${CMAKE_CURRENT_LIST_DIR}/constraint_state.cpp
  ${CMAKE_CURRENT_LIST_DIR}/constraint_build.cpp)
target_include_directories(dsv4_grammar PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(dsv4_grammar PUBLIC dsv4_text PRIVATE dsv4_flags Threads::Threads)
