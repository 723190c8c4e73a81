# Tool-call parser and constrained decoding: core/text/{dsml,grammar,schema,constraint}_*.
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.10 REQUIRED)
add_library(dsv4_grammar STATIC
  ${CMAKE_CURRENT_LIST_DIR}/dsml_json.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_strict.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_tag.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_stream.cpp
  ${CMAKE_CURRENT_LIST_DIR}/dsml_emit.cpp)
target_include_directories(dsv4_grammar PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
target_link_libraries(dsv4_grammar PRIVATE dsv4_flags nlohmann_json::nlohmann_json Threads::Threads)
