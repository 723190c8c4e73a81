# What a GPU plugin is made of; plugins/cuda, plugins/hip and the emulation in tests/conformance/gpu compile it each in
# their own way. The emulation replaces runtime.cu.
set(DSV4_GPU_SOURCES
  attend batch cache compress device ends graph hc linear memory model moe mtp output project random route sample sampler
  select)
list(TRANSFORM DSV4_GPU_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM DSV4_GPU_SOURCES APPEND .cu)
set(DSV4_GPU_RUNTIME ${CMAKE_CURRENT_LIST_DIR}/runtime.cu)
