# The console's files, and those that it takes from npm by console/package-lock.json, become arrays of th_control.
set(console_dir ${CMAKE_SOURCE_DIR}/console)
set(console_npm ${CMAKE_BINARY_DIR}/console)
file(GLOB console_files CONFIGURE_DEPENDS ${console_dir}/*.html ${console_dir}/*.js ${console_dir}/*.css ${console_dir}/*.svg
     ${console_dir}/pages/*.js ${console_dir}/parts/*.js)
file(GLOB console_recipes CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/recipes/train/*.yaml)
add_custom_command(
  OUTPUT ${console_npm}/node_modules/.package-lock.json
  COMMAND ${CMAKE_COMMAND} -E make_directory ${console_npm}
  COMMAND ${CMAKE_COMMAND} -E copy ${console_dir}/package.json ${console_dir}/package-lock.json ${console_npm}
  COMMAND npm ci --prefix ${console_npm} --ignore-scripts --loglevel=error --no-audit --no-fund
  COMMAND ${CMAKE_COMMAND} -E touch ${console_npm}/node_modules/.package-lock.json
  DEPENDS ${console_dir}/package.json ${console_dir}/package-lock.json
  COMMENT "Getting the console's packages from npm"
  VERBATIM)
add_custom_command(
  OUTPUT ${console_npm}/console_assets.cc
  COMMAND python3 ${CMAKE_SOURCE_DIR}/tools/embed_console.py --console ${console_dir} --npm ${console_npm}/node_modules
          --recipes ${CMAKE_SOURCE_DIR}/recipes/train --out ${console_npm}
  DEPENDS ${CMAKE_SOURCE_DIR}/tools/embed_console.py ${console_files} ${console_recipes}
          ${console_npm}/node_modules/.package-lock.json
  COMMENT "Embedding the console"
  VERBATIM)
target_sources(th_control PRIVATE ${console_npm}/console_assets.cc)
set_source_files_properties(${console_npm}/console_assets.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON
                            SKIP_PRECOMPILE_HEADERS ON)
# By themselves, so that the batches of the others stay as they are.
set_source_files_properties(${CMAKE_SOURCE_DIR}/src/control/api_console.cc ${CMAKE_SOURCE_DIR}/src/control/console.cc
                            ${CMAKE_SOURCE_DIR}/src/control/serving_load.cc PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
