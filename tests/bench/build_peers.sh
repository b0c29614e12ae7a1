#!/usr/bin/env bash
# Builds llama.cpp's own programs, to measure side by side with them: llama-bench, llama-completion, llama-server and
# llama-speculative-simple, with the libraries they need, from the sources that the pinned llama-cpp-python is made of.
#
#     tests/bench/build_peers.sh [FOLDER]        (default: tests/bench/.peers)
#
# Same llama.cpp, same compiler and same CMake options as llama-cpp-python's own build: Release, shared libraries,
# OpenMP, the processor's own instructions; options in CMAKE_ARGS (as -DGGML_CUDA=on) go to both. At the end the two
# libraries are asked what they were built for, and the answers must be equal. No network but for the archive, and for
# CMake where there is none. Takes about a quarter of an hour on two cores; JOBS (2) compilers run at a time.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=${1:-$root/tests/bench/.peers}
python=${PYTHON:-$root/.venv/bin/python}
programs=(llama-bench llama-completion llama-server llama-speculative-simple)
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# Two processes: in one, the second library would be given the first one's parts.
ours=$("$python" -c 'import llama_cpp; print(llama_cpp.llama_print_system_info().decode())')
require_same() {
  local theirs
  theirs=$("$python" - "$folder" << 'END'
import ctypes
import sys
from pathlib import Path

library = next(path for name in ("libllama.so", "libllama.dylib") if (path := Path(sys.argv[1], name)).exists())
ask = ctypes.CDLL(str(library)).llama_print_system_info
ask.restype = ctypes.c_char_p
print(ask().decode())
END
  )
  echo "built for: $theirs"
  if [ "$theirs" != "$ours" ]; then
    echo "llama-cpp-python was built for: $ours" >&2
    echo "build it again with the same CMAKE_ARGS, or compare nothing" >&2
    exit 1
  fi
}

pinned=$(sed -n 's/.*"\(llama-cpp-python==[0-9.]*\)".*/\1/p' "$root/pyproject.toml")
if [ -f "$folder/pinned" ] && [ "$(cat "$folder/pinned")" = "$pinned" ]; then
  require_same
  echo "$folder: the programs of $pinned are there"
  exit 0
fi

work=$folder/work
archive=$work/llama_cpp_python-${pinned##*==}.tar.gz
mkdir -p "$work"
if [ ! -f "$archive" ]; then
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$work" "$pinned"
fi
rm -rf "$work/source"
mkdir "$work/source"
tar -xzf "$archive" -C "$work/source" --strip-components=1

if ! command -v cmake > /dev/null || ! command -v ninja > /dev/null; then
  "$python" -m venv "$work/tools"
  "$work/tools/bin/python" -m pip install --quiet cmake ninja
  PATH=$work/tools/bin:$PATH
fi

# As in the Makefile: without code for AMX, if llama-cpp-python has none.
case $ours in
  *AMX_INT8*) ;;
  *) export CFLAGS="${CFLAGS:-} -U__AMX_INT8__" CXXFLAGS="${CXXFLAGS:-} -U__AMX_INT8__" ;;
esac

log=$folder/build.log
: > "$log"
quietly() {
  "$@" >> "$log" 2>&1 || {
    tail -n 30 "$log" >&2
    exit 1
  }
}
origin='$ORIGIN'
[ "$(uname)" != Darwin ] || origin=@loader_path

echo "building $pinned; what the compiler says is in $log"
# shellcheck disable=SC2086 # several options in one variable
quietly cmake -G Ninja -S "$work/source/vendor/llama.cpp" -B "$work/build" ${CMAKE_ARGS:-} \
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH="$origin" \
  -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_EXAMPLES=ON -DLLAMA_BUILD_SERVER=ON \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
  -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF
quietly cmake --build "$work/build" --parallel "${JOBS:-2}" --target "${programs[@]}"

for program in "${programs[@]}"; do
  cp "$work/build/bin/$program" "$folder/"
done
find "$work/build/bin" \( -name '*.so*' -o -name '*.dylib' \) -exec cp -P {} "$folder/" \;

require_same
rm -rf "$work"
echo "$pinned" > "$folder/pinned"
echo "$folder: ${programs[*]}"
