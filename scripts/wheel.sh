# For the scripts that fetch a library as a wheel: sourced, with `wheel` (NAME==VERSION) and `wheel_sha256` set, and
# `none` to end with a reason.

# download_wheel PYTHON FOLDER: the wheel as it lies in the index, held against its hashes, into FOLDER.
download_wheel() {
    {
        printf '%s' "$wheel"
        printf ' --hash=sha256:%s' "${wheel_sha256[@]}"
    } >"$2/wanted.txt"
    timeout 600 "$1" -m pip download --quiet --no-deps --only-binary=:all: --no-cache-dir --retries 2 --timeout 20 \
        --disable-pip-version-check --require-hashes --dest "$2" --requirement "$2/wanted.txt" </dev/null >&2 \
        || none "pip could not fetch $wheel (its reason is above; most often the package index cannot be reached)"
}

# ---- packages that are imported from a folder of their own ----
#
# With `script` (the caller), `label`, `home` (the variable that names another folder), `statement` (imports it), `size`
# and, where parts are left out, `leave_out` (how their names begin) set.

# provide_package PYTHON: prints the folder target/LABEL/WHEEL-TAG with the wheel's files, for CPython's tag of that
# Python. The folder that `home` names is used as it is. May run twice at once.
provide_package() {
    local python=$1 folder tag fetched
    if [[ -n ${!home:-} ]]; then
        is_usable "$python" "${!home}" || none "$home=${!home}: $(import_it "$python" "${!home}" 2>&1 | tail -n1)"
        echo "${!home}"
        return
    fi
    folder=$(cd "$(dirname "$script")/.." && pwd)/target/$label
    tag=$("$python" -c 'import sys; print(f"cp{sys.version_info[0]}{sys.version_info[1]}")' 2>/dev/null) || none "$python does not run"
    fetched=$folder/${wheel/==/-}-$tag
    # One at a time: the lock is on this file, so it leaves nothing behind.
    exec 9<"$script"
    if command -v flock >/dev/null; then flock -w 600 9 || none "another run of $script has not ended in 10 minutes"; fi
    if ! is_usable "$python" "$fetched"; then
        "$python" -m pip --version >/dev/null 2>&1 || none "$python has no pip to fetch one with"
        fetch_package "$python" "$fetched"
        is_usable "$python" "$fetched" || none "the one that was fetched does not load: $(import_it "$python" "$fetched" 2>&1 | tail -n1)"
    fi
    echo "$fetched"
}

is_usable() { [[ -d $2 ]] && import_it "$1" "$2" >/dev/null 2>&1; } # python, folder

import_it() { PYTHONPATH=$2 timeout 60 "$1" -c "$statement"; } # python, folder

# Puts the wheel's files into the folder named, all at once, and removes those of other versions.
fetch_package() { # python, folder
    local parent=${2%/*} work
    mkdir -p "$parent"
    work=$(mktemp -d "$parent/.fetch.XXXXXX")
    # shellcheck disable=SC2064 # the folder's name is known now
    trap "rm -rf '$work'" EXIT
    say "fetching ${wheel/==/ } into target/$label, once ($size)"
    download_wheel "$1" "$work"
    unpack "$1" "$work" || none "the wheel of $wheel cannot be unpacked"
    find "$parent" -mindepth 1 -maxdepth 1 -name "${wheel%%==*}-*" ! -name "${wheel/==/-}-*" -exec rm -rf {} +
    rm -rf "$2"
    mv "$work/unpacked" "$2"
}

unpack() { # python, folder
    "$1" - "$2" "${leave_out:-}" <<'PY'
import glob, sys, zipfile

work, leave_out = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    names = [name for name in wheel.namelist() if not leave_out or not name.startswith(leave_out)]
    wheel.extractall(work + "/unpacked", names)
PY
}
